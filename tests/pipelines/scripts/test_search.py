"""``search.py``: texts and examples against the features of a model, and what is refused."""

from __future__ import annotations

import csv
import json
import re

import pytest

from pipelines import search
from pipelines.storage.files import file_sha256
from tests.helpers.feature_folders import write_about, write_part
from tests.helpers.videofiles import write_video
from vlmodels.checkpoint import ADAPTER, save_adapter
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.omniclip import OmniCLIP
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.predictor import load
from vlmodels.span import Span


def model_in(folder, cls=ZeroShot, **settings):
    folder.mkdir()
    save_adapter(folder, cls(create("toy", weights="toy", num_frames=4), cls.Config(**settings)), classes=("a", "b c"))
    return folder


def features_of(run, folder, videos, **changed):
    """Features of whole videos, of two windows of the first one, and of one that could not be read."""
    predictor = load(run)
    parts = [(str(video), None) for video in videos] + [(str(videos[0]), Span(0, 1)), (str(videos[0]), Span(1, 2))]
    rows = [
        (video, span and span.start, span and span.end, predictor.embed([predictor.read_views(video, span)])[0])
        for video, span in parts
    ]
    gone = (str(folder / "gone <b>.mp4"), None, None, rows[0][3])
    digests = {"adapter_sha256": file_sha256(run / ADAPTER), "weights_digest": predictor.method.backbone.digest}
    dim = predictor.method.backbone.spec.embed_dim
    write_about(folder, dim, model=str(run), **digests, **changed)
    write_part(folder, 0, [*rows, gone, ("bad.mp4", None, None, None)], dim)
    return folder


@pytest.fixture
def library(tmp_path):
    videos = [write_video(tmp_path / f"{n}.mp4", frames=60, width=64 + 32 * n) for n in range(3)]
    run = model_in(tmp_path / "run")
    return run, features_of(run, tmp_path / "features", videos), videos


def test_hits_of_texts_and_examples_and_a_page_of_them(library, tmp_path, capsys):
    _, folder, videos = library
    (tmp_path / "queries.txt").write_text("ein Mädchen läuft 跑\n\nb c\n")
    page = tmp_path / "pages" / "found.html"
    more = ["--queries", str(tmp_path / "queries.txt"), "--video", str(videos[2]), "--page", str(page), "--json"]
    assert search.main(["word " * 100, "--embeddings", str(folder), *more]) == 0
    said = capsys.readouterr()
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [line["query"] for line in found][1:] == ["ein Mädchen läuft 跑", "b c", f"like {videos[2]}"]
    assert all(len({hit["video"] for hit in line["hits"]}) == len(line["hits"]) == 4 for line in found)
    assert found[3]["hits"][0]["video"] == str(videos[2])
    assert found[3]["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
    assert "longer than the" in said.err
    assert "a trained class, which the model knows as 'a video of b c.'" in said.err
    assert "1 more rows have none" in said.err
    text = page.read_text()
    assert "no picture: no longer there" in text
    assert "gone &lt;b&gt;.mp4" in text
    assert text.count("data:image/jpeg") == 4 * 3 + 1
    assert not re.search(r"""(src|href)=["']https?:""", text)


def test_every_window_is_listed_where_that_is_asked_for(library, capsys):
    _, folder, _ = library
    assert search.main(["x", "--embeddings", str(folder), "--every-window", "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 6
    assert {(row["start"], row["end"]) for row in rows} == {("", ""), ("0.0", "1.0"), ("1.0", "2.0")}


def test_another_model_is_refused_with_both_named(library, tmp_path):
    _, folder, _ = library
    other = model_in(tmp_path / "other", template="{}!")
    with pytest.raises(UserError, match=r"(?s)run.*not of .*other.*--model"):
        search.main(["x", "--embeddings", str(folder), "--model", str(other)])
    about = json.loads((folder / "embeddings.json").read_text())
    (folder / "embeddings.json").write_text(json.dumps(about | {"weights_digest": "0" * 64}))
    with pytest.raises(UserError, match="backbone toy with the digest 000000000000"):
        search.main(["x", "--embeddings", str(folder)])
    (folder / "embeddings.json").write_text(json.dumps(about | {"model": str(tmp_path / "moved")}))
    with pytest.raises(UserError, match=r"moved.*--model"):
        search.main(["x", "--embeddings", str(folder)])


def test_a_model_that_texts_cannot_search_is_searched_by_example(tmp_path, capsys):
    videos = [write_video(tmp_path / f"{n}.mp4", frames=60, width=64 + 32 * n) for n in range(2)]
    folder = features_of(model_in(tmp_path / "run", OmniCLIP), tmp_path / "features", videos)
    with pytest.raises(UserError, match=r"head=text_fixed.*--video"):
        search.main(["x", "--embeddings", str(folder)])
    assert search.main(["--video", str(videos[1]), "--embeddings", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["video"] == str(videos[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([" "], "query 1 is blank"),
        (["a\udc80"], r"U\+DC80"),
        (["--queries", "none.txt"], "none.txt"),
        (["x", "--page", "."], "is a folder"),
        (["--video", "none.mp4"], "none.mp4"),
    ],
)
def test_mistakes_are_one_message(library, arguments, said):
    with pytest.raises(UserError, match=said):
        search.main([*arguments, "--embeddings", str(library[1])])


def test_nothing_to_look_for_is_said(capsys):
    with pytest.raises(SystemExit):
        search.main(["--embeddings", "x"])
    assert "what to look for?" in capsys.readouterr().err


def test_features_that_are_still_being_made_are_searched_with_a_warning(library, tmp_path, capsys):
    _, folder, videos = library
    about = json.loads((folder / "embeddings.json").read_text())
    (folder / "embeddings.json").write_text(json.dumps(about | {"videos": 9, "complete": False}))
    page = tmp_path / "found.html"
    assert search.main(["x", "--embeddings", str(folder), "--page", str(page)]) == 0
    said = capsys.readouterr()
    assert str(videos[0]) in said.out
    assert "unfinished: it holds 5 of 9 videos" in said.err
    assert "unfinished" in page.read_text()


def test_a_damaged_part_is_named_and_the_exit_code_says_so(library, capsys):
    _, folder, _ = library
    (folder / "part-000001.arrow").write_bytes(b"PAR1")
    assert search.main(["x", "--embeddings", str(folder)]) == 1
    assert "part-000001.arrow is damaged" in capsys.readouterr().err
