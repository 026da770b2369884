"""The search for the files that describe a label list: by data set and part, never by the number of classes alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from llm_descriptions.errors import DescriptionError
from llm_descriptions.locate import TOY_FOLDER, find_published
from llm_descriptions.published_files import parse_path

if TYPE_CHECKING:
    from pathlib import Path

BOTH = ("spatial", "temporal")


def find(csv, *given, kinds=BOTH, n=2, **more):
    return find_published(csv, given, kinds=kinds, n=n, **more)


def names(found):
    return [published.file.path.name for published in found]


def labels(path: Path, *classes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(classes)))
    return path


def describe(folder: Path, name: str, *classes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps({str(i): [f"about {c}", f"more {c}"] for i, c in enumerate(classes)}))
    return path


@pytest.mark.parametrize(
    ("csv", "n", "stem", "classes"),
    [
        ("hmdb_51_labels.csv", 2, "hmdb", 51),
        ("hmdb_51_base_labels.csv", 2, "hmdb_base", 26),
        ("hmdb_51_novel_labels.csv", 8, "hmdb", 25),
        ("ucf_101_base_labels.csv", 2, "ucf_101_base", 51),
        ("ucf_101_base_labels.csv", 4, "ucf_101", 51),
        ("ssv2_labels.csv", 2, "ssv2", 174),
        ("ssv2_174_novel_labels.csv", 2, "ssv2_novel", 87),
        ("kinetics_400_base_labels.csv", 8, "k400", 200),
        ("kinetics_600_labels.csv", 4, "k600", 600),
        ("ZS_split3_K600.csv", 4, "k600", 160),
    ],
)
def test_files_of_the_published_lists_are_found(shared_data, csv, n, stem, classes):
    found = find(shared_data / "labels" / csv, shared_data / "descriptions", n=n)
    assert names(found) == [f"{n}_s_description_{stem}.json", f"{n}_t_description_{stem}.json"]
    assert [len(published.texts) for published in found] == [classes, classes]


def test_files_of_ost_are_found(shared_data):
    root = shared_data / "descriptions_ost"
    found = find(shared_data / "labels" / "ssv2_174_base_labels.csv", root, n=4)
    assert [published.file.data for published in found] == ["sth", "sth"]
    found = find(shared_data / "labels" / "ZS_split2_K600.csv", root, n=8)
    assert {published.file.part for published in found} == {"split2"}
    splits = [shared_data / "labels" / f"ZS_split{i}_K600.csv" for i in (1, 2, 3)]
    union = root / "k600" / "spatio_descriptors" / "4_descriptors.json"
    with pytest.raises(DescriptionError, match=r"217 classes.*160.*--index-labels"):
        find(splits[0], union)
    (by_union,) = find(splits[0], union, index_labels=splits)
    (by_split,) = find(splits[0], root, kinds=["spatial"], n=4)
    assert by_union.texts == by_split.texts


def test_messages_list_the_files_of_a_folder_that_do_not_fit(shared_data, tmp_path):
    root = shared_data / "descriptions"
    with pytest.raises(DescriptionError, match=r"no temporal descriptions.*n=8 \(there: n=2, 4\)"):
        find(shared_data / "labels" / "kinetics_600_labels.csv", root, n=8)
    own = labels(tmp_path / "mine" / "own_labels.csv", *(f"class {i}" for i in range(51)))
    with pytest.raises(DescriptionError, match=r"has the data set.*own_labels.csv.*etl4video hmdb.*FILE"):
        find(own, root)


def test_two_collections_in_one_folder_are_refused(shared_data):
    with pytest.raises(DescriptionError, match=r"several spatial files with n=4 fit.*--from-published FILE"):
        find(shared_data / "labels" / "hmdb_51_labels.csv", shared_data, n=4)


def test_toy_worlds_are_found_by_name(tmp_path):
    toy = tmp_path / "toy"
    for data, classes in {"toy_ucf": ["run", "sit", "clap"], "toy_ssv2": ["up", "down", "left"]}.items():
        for kind in "st":
            describe(toy, f"2_{kind}_description_{data}.json", *classes)
    full = labels(tmp_path / "world" / "toy-ucf" / "labels.csv", "run", "sit", "clap")
    base = labels(full.with_name("base_labels.csv"), "clap", "run")
    found = find(base, "toy-ucf", toy_folder=toy)
    assert names(found) == ["2_s_description_toy_ucf.json", "2_t_description_toy_ucf.json"]
    assert found[0].texts == {"clap": ("about clap", "more clap"), "run": ("about run", "more run")}
    assert names(find(full, toy)) == names(found), "the folder of the CSV has the data set in its name"
    with pytest.raises(DescriptionError, match=r"'toy-x' is not a file.*\(toy-ssv2, toy-ucf\)"):
        find(full, "toy-x", toy_folder=toy)


def test_the_package_has_descriptions_of_two_toy_worlds():
    files = sorted(TOY_FOLDER.glob("*.json"))
    assert len(files) == 12, "two kinds of two toy worlds, each whole, base and novel"
    for path in files:
        assert parse_path(path) is not None
        assert all(len(texts) == 2 for texts in json.loads(path.read_text()).values())


def test_named_files_are_all_read(tmp_path):
    csv = labels(tmp_path / "own.csv", "run", "sit")
    files = [describe(tmp_path, f"{n}_s_description_any.json", "run", "sit") for n in (2, 4)]
    assert names(find(csv, *files, kinds=["temporal"], n=8)) == [path.name for path in files]
    with pytest.raises(DescriptionError, match=r"no such file: .*absent.json"):
        find(csv, files[0], tmp_path / "absent.json")
    odd = describe(tmp_path, "texts.json", "run", "sit")
    with pytest.raises(DescriptionError, match=r"texts\.json: the name .* must say its N, kind"):
        find(csv, odd)


def test_an_index_list_must_be_the_only_one_that_fits(tmp_path):
    csv = labels(tmp_path / "part.csv", "run")
    file = describe(tmp_path, "2_s_description_any.json", "run", "sit")
    with pytest.raises(DescriptionError, match=r"2 classes, .*part.csv 1: give the CSV"):
        find(csv, file)
    first = labels(tmp_path / "a.csv", "run", "sit")
    assert find(csv, file)[0].texts["run"] == ("about run", "more run")
    labels(tmp_path / "b.csv", "sit", "run")
    with pytest.raises(DescriptionError, match=r"several CSV files in its folder fit: .*a.csv, .*b.csv"):
        find(csv, file)
    assert find(csv, file, index_labels=[first])[0].texts["run"] == ("about run", "more run")
