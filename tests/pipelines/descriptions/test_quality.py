"""The quality report: what it finds in texts made for it and in the published ones, and what it leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import read_labels
from llm_descriptions.published_files import parse_path, read_published
from llm_descriptions.store import DescriptionStore, Key, Provenance
from pipelines.describe import main
from pipelines.descriptions.quality import class_cosines, judge, judge_store, names_class, similarity, token_count
from pipelines.descriptions.quality_page import page, write_quality
from tests.helpers.llm_server import LlmServer
from vlmodels.clip import create
from vlmodels.errors import UserError

FILE = Provenance(origin="x.json")


@pytest.fixture(scope="module")
def toy():
    return create("toy", weights="toy")


def words(text):
    return len(text.split())


def test_what_is_found():
    texts = {
        "brush_hair": ["A video about long brush hair.", "A video about a comb.", "a comb"],
        "ApplyLipstick": ["A videos about a red lip.", "A video about apply lipstick."],
        "run": ["A video about A comb.", "A video about a runway with many lights along both of its sides."],
    }
    found = judge(texts, "spatial", 2, words, 10, framed=True)
    assert found["texts"] == 7
    assert found["uneven"] == {"brush_hair": 3}
    assert found["words"] == {"min": 2, "mean": round((6 + 5 + 2 + 6 + 5 + 5 + 13) / 7, 2), "max": 13}
    assert found["cut"] == [{"label": "run", "tokens": 13, "text": texts["run"][1]}]
    assert found["twice"] == [{"label": "brush_hair", "text": "a comb"}]
    assert found["shared"] == [{"labels": ["brush_hair", "run"], "text": "a comb"}]
    assert [hit["label"] for hit in found["leaks"]] == ["brush_hair", "ApplyLipstick"], "a runway is no run"
    assert found["misses"] == [{"label": "brush_hair", "text": "a comb"}]
    temporal = judge(texts, "temporal", 2, words, 10, framed=True)
    assert temporal["leaks"] is None, "temporal sentences name their class by their frame"
    assert len(temporal["misses"]) == 7
    assert judge(texts, "spatial", 2, words, 10, framed=False)["misses"] is None


@pytest.mark.parametrize("text", ["applyeyemakeup here", "to Apply Eye  Makeup", "a (apply_eye_makeup)."])
def test_names_are_found_in_every_spelling(text):
    assert names_class(text, "ApplyEyeMakeup")
    assert not names_class("apply eye makeups", "ApplyEyeMakeup")


def test_repetitions_of_published_files(shared_data):
    """PROTOCOLS 2.3 and 2.4: sentences without their frame, and those that come more than once in a file."""

    def judged(name, csv):
        names = read_labels(shared_data / "labels" / csv)
        published = read_published(parse_path(shared_data / "descriptions" / name), names)
        return judge(published.texts, published.file.kind, published.file.n, words, 77, framed=True)

    k600 = judged("8_s_description_k600.json", "kinetics_600_labels.csv")
    assert [hit["label"] for hit in k600["twice"]] == ["battle rope training"]
    assert len(k600["shared"]) + len(k600["twice"]) == 150
    assert len(k600["misses"]) == 127
    k400 = judged("8_s_description_k400.json", "kinetics_400_labels.csv")
    assert len(k400["shared"]) == 80
    assert k400["uneven"] == {"kicking field goal": 1}


def test_cosines_are_those_of_plain_torch(toy):
    texts = {"a": ["a red ball", "a blue box"], "b": ["a red ball"], "c": ["a boat at sea", "snow"]}
    means = []
    for found in texts.values():
        features = toy.encode_text(toy.tokenizer(found)).detach()
        means.append((features / features.norm(dim=1, keepdim=True)).mean(0))
    expected = [[torch.cosine_similarity(x, y, dim=0).item() for y in means] for x in means]
    cosines = class_cosines(toy, texts)
    np.testing.assert_allclose(cosines, expected, atol=1e-5)
    found = similarity(cosines, list(texts))
    assert found["mean_cosine"] == pytest.approx(np.mean([expected[0][1], expected[0][2], expected[1][2]]), abs=1e-4)
    assert found["closest"][0]["labels"] == ["a", "b"]
    assert found["nearest"]["b"]["label"] == "a"
    assert found["nearest"]["a"] == {"label": "b", "cosine": pytest.approx(expected[0][1], abs=1e-4)}
    assert similarity(np.ones((1, 1)), ["a"]) == {"mean_cosine": None, "closest": [], "nearest": {}}


def test_tokens_are_counted_uncut(toy):
    count = token_count(toy)
    assert count("a red ball") == 5
    assert count("ball " * 50) == 52
    assert toy.spec.context_length == 32


@pytest.fixture
def store(tmp_path):
    store = DescriptionStore(tmp_path / "descriptions.sqlite")
    for label in ("boat", "snow"):
        for kind in ("spatial", "temporal"):
            store.put(Key(label, kind, "msta-v1", "m", 1), [f"A video about {label} {kind}."], FILE)
    store.put(Key("boat", "spatial", "published", "ost/x", 1), ["hull"], FILE)
    return store


def test_files(store, toy, tmp_path):
    written = write_quality(store, ["boat", "snow"], ["spatial", "temporal"], toy, tmp_path / "q")
    assert [path.name for path in written] == [
        "quality.json", "quality.md", "similarity_1_spatial.png", "similarity_2_temporal.png",
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "q").iterdir()} == {path.name for path in written}
    record, text = json.loads(written[0].read_text()), written[1].read_text()
    assert [source["kind"] for source in record["sources"]] == ["spatial", "temporal"]
    assert record["incomplete"] == [
        {"kind": "spatial", "source": "prompt_id=published, model=ost/x, n=1", "missing": ["snow"]}
    ]
    assert r"classes are missing: spatial, prompt\_id=published, model=ost/x, n=1: snow" in text
    assert "![Cosines between classes](similarity_1_spatial.png)" in text
    assert "does not know" in record["remarks"][0]
    assert "> Remark: lengths and similarities are those of the toy CLIP" in text
    assert written[2].read_bytes().startswith(b"\x89PNG")


def test_odd_names_and_texts_stand_for_themselves(toy, tmp_path):
    """What is no mathematics, no markup and no HTML though it looks like it."""
    store, labels = DescriptionStore(tmp_path / "s.sqlite"), ["$x^$", "<b>a|b</b>"]
    store.put_all({Key(x, "spatial", "p", "<m>", 1): ["A video about <script>*it* now."] for x in labels}, FILE)
    text = write_quality(store, labels, ["spatial"], toy, tmp_path / "q")[1].read_text()
    assert "&lt;script&gt;\\*it\\*" in text
    assert "&lt;b&gt;a\\|b&lt;/b&gt;" in text
    assert "model=&lt;m&gt;" in text
    assert "<" not in text


def test_nothing_to_judge(store, toy, tmp_path):
    with pytest.raises(DescriptionError, match=r"lacks descriptions: .*'rain'"):
        judge_store(store, ["boat", "rain"], ["spatial"], toy)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the quality report"):
        write_quality(store, ["boat", "snow"], ["spatial"], toy, tmp_path / "file" / "q")


def test_long_lists_are_shortened_on_the_page(toy, tmp_path):
    store = DescriptionStore(tmp_path / "s.sqlite")
    labels = [f"class {i}" for i in range(70)]
    store.put_all({Key(x, "spatial", "p", "m", 1): [f"about {x} " + "so " * 40] for x in labels}, FILE)
    record, matrices = judge_store(store, labels, ["spatial"], toy)
    assert matrices[0].shape == (70, 70)
    record["sources"][0]["picture"] = "x.png"
    assert "class 7 (" in page(record)
    assert "class 8 (45" not in page(record)
    assert "and 62 more (quality.json has all)" in page(record)


def test_report_of_what_is_stored_asks_nothing(tmp_path, capsys):
    with LlmServer() as server:
        csv = tmp_path / "labels.csv"
        csv.write_text("id,name\n0,boat\n1,snow\n")
        (tmp_path / "2_s_description_x.json").write_text(json.dumps({"0": ["hull", "sail"], "1": ["white", "cold"]}))
        arguments = ["--labels", str(csv), "--out", str(tmp_path / "out"), "--report"]
        published = ["--from-published", str(tmp_path / "2_s_description_x.json"), "--kinds", "spatial"]
        assert main([*arguments, *published]) == 0
        assert main([*arguments, "--kinds", "spatial"]) == 0
        assert capsys.readouterr().out.count("quality.md") == 2
        with pytest.raises(DescriptionError, match="temporal: none at all for 'boat', 'snow'"):
            main([*arguments, "--kinds", "temporal"])
        with pytest.raises(UserError, match="--backbone ViT-B-32 needs --pretrained"):
            main([*arguments, "--kinds", "spatial", "--backbone", "ViT-B-32"])
        assert server.requests == []
