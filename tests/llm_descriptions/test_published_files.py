"""Published files: the real ones have the papers' numbers of classes; messages about broken ones name them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import read_labels
from llm_descriptions.published_files import STYLES, export_published, parse_path, read_published

ETL_CLASSES = {
    "hmdb": 51, "hmdb_base": 26, "hmdb_novel": 25, "k400": 400, "k400_base": 200, "k400_novel": 200,
    "k600": 600, "ssv2": 174, "ssv2_base": 87, "ssv2_novel": 87, "ucf_101": 101, "ucf_101_base": 51,
    "ucf_101_novel": 50,
}  # fmt: skip
CSV = {"hmdb": "hmdb_51", "k400": "kinetics_400", "k600": "kinetics_600", "ssv2": "ssv2_174", "ucf_101": "ucf_101"}
OST = {"hmdb": "hmdb_51", "k400": "kinetics_400", "sth": "ssv2", "ucf": "ucf_101"}


def csv_of(shared_data, data, part):
    name = f"{CSV[data]}{'_' + part if part else ''}_labels.csv"
    return shared_data / "labels" / ("ssv2_labels.csv" if name == "ssv2_174_labels.csv" else name)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return parse_path(path)


def test_every_etl4video_file_loads(shared_data):
    counts, notes = Counter(), []
    for path in sorted((shared_data / "descriptions").glob("*.json")):
        file = parse_path(path)
        names = read_labels(csv_of(shared_data, file.data, file.part))
        published = read_published(file, names)
        assert len(published.texts) == ETL_CLASSES["_".join(filter(None, (file.data, file.part)))]
        uneven = [name for name, texts in published.texts.items() if len(texts) != file.n]
        assert uneven == (["kicking field goal"] if path.name == "8_s_description_k400.json" else [])
        counts[file.n, file.kind] += 1
        notes += published.notes
    assert counts == {
        (2, "spatial"): 13, (2, "temporal"): 13, (4, "spatial"): 5, (4, "temporal"): 5,
        (8, "spatial"): 5, (8, "temporal"): 4,
    }  # fmt: skip
    assert [note.rpartition("/")[2] for note in notes] == [
        "8_s_description_k400.json: not 8 texts for every class: 'kicking field goal' has 1",
        "8_s_description_k600.json: the same text more than once for 'battle rope training'",
        "8_t_description_k400.json: the same text more than once for 'hopscotch'",
    ]


def test_base_and_novel_derived_by_name_equal_the_shipped_files(shared_data):
    for path in sorted((shared_data / "descriptions").glob("2_*_base.json")):
        for part in ("base", "novel"):
            file = parse_path(path.with_name(path.name.replace("base", part)))
            full = parse_path(path.with_name(path.name.replace("_base", "")))
            names = read_labels(csv_of(shared_data, file.data, part))
            derived = read_published(full, read_labels(csv_of(shared_data, file.data, "")), names)
            assert derived.texts == read_published(file, names).texts


def test_every_ost_file_loads(shared_data):
    root, labels = shared_data / "descriptions_ost", shared_data / "labels"
    splits = [read_labels(labels / f"ZS_split{i}_K600.csv") for i in (1, 2, 3)]
    union = sorted({name for names in splits for name in names})
    counts = Counter()
    for path in sorted(root.rglob("*.json")):
        file = parse_path(path)
        names = read_labels(labels / f"{OST[file.data]}_labels.csv") if file.data in OST else union
        if file.part:
            names = splits[int(file.part[-1]) - 1]
        published = read_published(file, names)
        assert all(len(texts) == file.n for texts in published.texts.values())
        counts[file.data, file.part, len(published.texts)] += 1
    assert counts == {
        ("hmdb", "", 51): 2, ("k400", "", 400): 2, ("ucf", "", 101): 2, ("sth", "", 174): 2, ("k600", "", 217): 2,
        ("k600", "split1", 160): 6, ("k600", "split2", 160): 6, ("k600", "split3", 160): 6,
    }  # fmt: skip


@pytest.mark.parametrize("corrected", [False, True])
def test_hmdb_names_get_their_own_texts(shared_data, corrected):
    names = list(read_labels(shared_data / "labels" / "hmdb_51_labels.csv"))
    if corrected:  # a CSV in the order of the video lists
        for i in (20, 44):
            names[i], names[i + 1] = names[i + 1], names[i]
    etl = read_published(parse_path(shared_data / "descriptions" / "2_t_description_hmdb.json"), names)
    assert "of kick ball" in etl.texts["kick ball"][0]
    assert "of a kick " in etl.texts["kick"][0]
    ost = read_published(
        parse_path(shared_data / "descriptions_ost/hmdb/temporal_descriptors/4_descriptors.json"), names
    )
    assert "ball" in " ".join(ost.texts["kick ball"])
    assert "ball" not in " ".join(ost.texts["kick"])
    assert bool(ost.notes) is not corrected
    assert bool(etl.notes) is corrected


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("2_s_description_hmdb_base.json", ("etl4video", "hmdb", "base", "spatial", 2)),
        ("16_t_description_ucf_101.json", ("etl4video", "ucf_101", "", "temporal", 16)),
        ("2_s_description_toy_ucf.json", ("toy", "toy_ucf", "", "spatial", 2)),
        ("ucf/temporal_descriptors/4_descriptors.json", ("ost", "ucf", "", "temporal", 4)),
        ("k600/split2/spatio_8_descriptors.json", ("ost", "k600", "split2", "spatial", 8)),
    ],
)
def test_a_file_name_is_parsed(tmp_path, name, parts):
    file = parse_path(tmp_path / name)
    assert (file.style, file.data, file.part, file.kind, file.n) == parts


def test_other_file_names_are_ignored(tmp_path):
    for name in ("descriptions.json", "s_description_x.json", "2_u_description_x.json", "2_s_description_x.csv"):
        assert parse_path(tmp_path / name) is None


def test_messages_name_all_missing_and_surplus_classes(tmp_path):
    file = write(tmp_path / "2_s_description_x.json", {"0": ["a", "b"], "3": ["a"], "x": ["a"]})
    with pytest.raises(DescriptionError) as caught:
        read_published(file, ["run", "clap", "sit"])
    message = str(caught.value)
    assert "3 classes, the class list 3" in message
    assert "2 missing: 1 'clap', 2 'sit'" in message
    assert "2 surplus: 3, x" in message
    assert "2_s_description_x.json" in message
    assert "--index-labels" in message


def test_messages_name_classes_that_the_index_list_lacks(tmp_path):
    file = write(tmp_path / "2_s_description_x.json", {"0": ["a"], "1": ["b"]})
    with pytest.raises(DescriptionError, match="no descriptions for 2 classes: sit, stand"):
        read_published(file, ["run", "clap"], ["run", "sit", "stand"])
    found = read_published(file, ["Brush_Hair", "clap"], ["brush hair"])
    assert found.texts == {"brush hair": ("a",)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<html>", "cannot read"),
        ([["a"]], "JSON object"),
        ({"0": "a", "1": ["b"]}, "list of non-empty texts: 0"),
        ({"0": ["a"], "1": []}, "non-empty texts: 1"),
        ({"0": ["a"], "1": ["b", " "]}, "non-empty texts: 1"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, content, reason):
    file = write(tmp_path / "2_s_description_x.json", content)
    with pytest.raises(DescriptionError, match=reason):
        read_published(file, ["run", "clap"])


def step(action):
    return [f"A video of {action} generally involves the following step: going, which is a sub-step."]


def test_texts_of_other_classes_are_refused(tmp_path):
    names = ["brush hair", "ApplyLipstick", "kicking_a_ball", "run"]
    texts = [step("brushing hair"), step("applylipstick"), step("kick ball"), step("running")]
    file = write(tmp_path / "2_t_description_x.json", dict(enumerate(texts)))
    assert len(read_published(file, names).texts) == 4
    shifted = write(tmp_path / "4_t_description_x.json", dict(enumerate(texts[1:] + texts[:1])))
    with pytest.raises(DescriptionError, match=r"other classes: 4 of 4.*'brush hair' \('applylipstick'\)"):
        read_published(shifted, names)


def test_shifted_real_files_are_refused(shared_data):
    for data in ("hmdb", "k400", "ssv2", "ucf_101"):
        names = read_labels(csv_of(shared_data, data, ""))
        file = parse_path(shared_data / "descriptions" / f"2_t_description_{data}.json")
        with pytest.raises(DescriptionError, match="seems to describe other classes"):
            read_published(file, [*names[1:], names[0]])


@pytest.mark.parametrize("style", STYLES)
def test_an_exported_file_is_read_back(tmp_path, style):
    texts = {"run": ("plié", "b"), "clap": ("c", "d")}
    path = export_published(tmp_path, "own", texts, ["clap", "run"], kind="spatial", n=2, style=style)
    assert json.loads(path.read_text()) == {"0": ["c", "d"], "1": ["plié", "b"]}
    file = parse_path(path)
    assert (file.style, file.data, file.kind, file.n) == (style, "own", "spatial", 2)
    assert read_published(file, ["clap", "run"]).texts == texts
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == [path], "no temporary file is left"
    with pytest.raises(DescriptionError, match="no descriptions of sit, stand"):
        export_published(tmp_path, "own", texts, ["clap", "sit", "stand"], kind="spatial", n=2, style=style)
    with pytest.raises(DescriptionError, match=r"'\.\./own' is not valid as a data set's name"):
        export_published(tmp_path, "../own", texts, ["clap"], kind="spatial", n=2, style=style)


def test_ost_files_have_phrases_without_frames(tmp_path):
    texts = {"brush hair": [*step("brushing hair"), "A video about smooth strokes.", "a video camera pans"]}
    path = export_published(tmp_path, "own", texts, ["brush hair"], kind="temporal", n=3, style="ost")
    assert path == tmp_path / "own" / "temporal_descriptors" / "3_descriptors.json"
    assert json.loads(path.read_text()) == {"0": ["going", "smooth strokes", "a video camera pans"]}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("corrected", [False, True])
def test_hmdb_pairs_keep_their_texts_through_export_and_import(tmp_path, style, corrected):
    names = ["kick", "kick ball", "run"] if corrected else ["kick ball", "kick", "run"]
    texts = {"kick": ("high leg",), "kick ball": ("a ball flies",), "run": ("two legs",)}
    path = export_published(tmp_path, "hmdb", texts, names, kind="spatial", n=1, style=style)
    assert read_published(parse_path(path), names).texts == texts


def test_real_files_do_not_change_through_import_and_export(shared_data, tmp_path):
    for data in ("hmdb", "ssv2"):
        names = read_labels(csv_of(shared_data, data, ""))
        original = shared_data / "descriptions" / f"4_t_description_{data}.json"
        texts = read_published(parse_path(original), names).texts
        path = export_published(tmp_path, data, texts, names, kind="temporal", n=4)
        assert path.name == original.name
        assert json.loads(path.read_text()) == {k: [t.strip() for t in v] for k, v in load(original).items()}


def load(path):
    return json.loads(path.read_text(encoding="utf-8-sig"))
