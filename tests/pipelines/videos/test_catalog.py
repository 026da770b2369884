"""The published lists load with their counts, and are as irregular as they are known to be."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from pipelines.videos.catalog import DATASETS, dataset, dataset_of_folder, part_of
from pipelines.videos.list_choice import wanted_lists
from pipelines.videos.list_files import read_labels
from pipelines.videos.list_folder import ListFolder
from vlmodels.errors import UserError

PER_CLASS = {
    "hmdb51": {"val1": (30, 30), "val2": (30, 30), "val3": (30, 30), "base_train": (70, 70)},
    "ucf101": {"val1": (28, 49), "val2": (28, 49), "val3": (28, 48), "base_train": (93, 121)},
    "ssv2": {"validation": (15, 530), "base_train": (873, 3284)},
    "k400": {"val": (42, 50), "train_tiny": (150, 150)},
    "k600": {f"ZS_split{i}_K600_eval": (low, 99) for i, low in ((1, 40), (2, 21), (3, 40))},
}
"""Fewest and most videos of a class."""

LEFT_OUT = {
    "hmdb51": ["train1"],
    "ucf101": ["train1"],
    "ssv2": ["train"],
    "k400": ["train", "base_train"],
    "k600": ["train"],
}


@pytest.fixture
def folder(shared_data):
    return cache(lambda name: ListFolder.open(shared_data, name))


@pytest.fixture
def paths(folder):
    """Paths of a list, as a set."""
    return cache(lambda name, stem: {line.path for line in folder(name).read(stem).lines})


@pytest.mark.parametrize("name", DATASETS)
def test_every_published_list_has_its_counts(folder, name):
    data, lists = DATASETS[name], folder(name)
    assert set(lists.names()) == set(data.counts)
    for stem, count in data.counts.items():
        found = lists.read(stem)
        per_class = Counter(line.label for line in found.lines)
        classes = data.part_classes.get(part_of(stem), data.classes)
        assert (len(found.lines), len(found.classes), len(per_class)) == (count, classes, classes), stem
        assert len({line.path for line in found.lines}) == count, stem
        ends = (min(per_class.values()), max(per_class.values()))
        if "few_shot" in stem or stem.startswith("fs_base"):
            assert ends == (count // classes, count // classes), stem
        assert ends == PER_CLASS[name].get(stem.removesuffix("_filtered_OST"), ends), stem
    assert wanted_lists(lists, None)[1] == LEFT_OUT[name]


def test_every_label_file_is_read(shared_data):
    sizes = {path.name: len(read_labels(path)) for path in (shared_data / "labels").glob("*.csv")}
    assert len(sizes) == 16
    for data in DATASETS.values():
        assert sizes[data.labels] == data.classes
        for part, file in data.part_labels.items():
            assert sizes[file] == data.part_classes[part]


@pytest.mark.parametrize("name", ["hmdb51", "ucf101", "ssv2", "k400"])
def test_base_and_novel_labels_map_onto_the_full_list_by_name(folder, shared_data, name):
    data = DATASETS[name]
    full = {line.path: names[line.label] for names, line in lines(folder(name).read(data.tests[0]))}
    parts = [folder(name).read(stem) for stem in ("base_val", "novel_val")]
    assert {line.path: names[line.label] for part in parts for names, line in lines(part)} == full
    assert not set(parts[0].classes) & set(parts[1].classes)
    assert {*parts[0].classes, *parts[1].classes} == set(read_labels(shared_data / "labels" / data.labels))


def lines(found):
    return ((found.classes, line) for line in found.lines)


def test_hmdb_labels_swap_four_names(folder, shared_data):
    published = folder("hmdb51").read("val1")
    corrected = ListFolder.open(shared_data, "hmdb51", hmdb_names="corrected").read("val1")
    wrong = {True: 0, False: 0}
    for found in (published, corrected):
        for line in found.lines:
            name = found.classes[line.label].replace(" ", "_")
            others = [other.replace(" ", "_") for other in found.classes if other != found.classes[line.label]]
            stem = line.path.rsplit("_", 6)[0]  # film and action, without the six codes
            longer = any(stem.endswith(f"_{other}") and other.endswith(name) for other in others)
            wrong[found is published] += not stem.endswith(f"_{name}") or longer
    assert wrong == {True: 120, False: 0}
    swapped = ["kick ball", "kick", "sword exercise", "sword"]
    (caveat,) = folder("hmdb51").name_caveats(published.classes)
    assert "'kick ball' and 'kick' and 'sword exercise' and 'sword' are swapped, as published" in caveat
    assert [published.classes[i] for i in (20, 21, 44, 45)] == swapped
    map_file = shared_data / "labels" / "alt" / "mmaction2_hmdb51_label_map.txt"
    assert list(corrected.classes) == [name.replace("_", " ") for name in map_file.read_text().split()]


def test_few_shot_lists_leak_into_the_second_and_third_test_lists(paths):
    leaks = {
        (name, test): len(paths(name, "train1_few_shot_16") & paths(name, test))
        for name in ("hmdb51", "ucf101")
        for test in ("val1", "val2", "val3")
    }
    assert list(leaks.values()) == [0, 233, 254, 0, 627, 623]
    for name in ("hmdb51", "ucf101", "ssv2"):  # independent draws, not nested
        draws = [paths(name, f"train1_few_shot_{k}") for k in (2, 4, 8, 16)]
        assert not any(few <= more for few, more in combinations(draws, 2))


def test_draws_of_base_shots_overlap_a_little_and_never_with_the_test_lists(paths):
    expected = {"hmdb51": [52, 130, 0], "ucf101": [80, 102, 85], "ssv2": [0, 0, 60], "k400": [0, 0, 178]}
    for name, overlaps in expected.items():
        draws = [paths(name, f"fs_base_s{i}_train") for i in (1, 2, 3)]
        assert [len(a & b) for a, b in combinations(draws, 2)] == overlaps, name
        tests = paths(name, "base_val") | paths(name, "novel_val")
        assert not any(draw & tests for draw in draws)


def test_published_names_that_break_naive_readers(paths, folder):
    hmdb = set().union(*(paths("hmdb51", stem) for stem in DATASETS["hmdb51"].counts))
    assert all(any(mark in path for path in hmdb) for mark in "[]()!#&+;~@")
    ucf = set().union(*(paths("ucf101", stem) for stem in DATASETS["ucf101"].counts))
    assert not any("HandstandPushups" in path for path in ucf)
    found = folder("ucf101").read("val1")
    named = {found.classes[line.label] for line in found.lines if "HandStandPushups" in line.path}
    assert named == {"HandstandPushups"}
    assert any("," in name for name in folder("ssv2").read("validation").classes)
    assert {path.split("/")[0] for path in paths("k600", "ZS_split1_K600_eval")} == {"train", "val", "test"}
    flat = {path.rsplit("/", 1)[-1] for path in paths("k600", "ZS_split1_K600_eval")}
    assert flat == paths("k600", "ZS_split1_K600_eval_filtered_OST")


def test_data_sets_are_found_by_name_and_folder():
    assert dataset("hmdb51").title == "HMDB51"
    assert dataset_of_folder("ucf_splits") is DATASETS["ucf101"]
    assert dataset_of_folder("mine") is None
    with pytest.raises(UserError, match=r"unknown data set 'hmdb' \(did you mean 'hmdb51'\?\); known: hmdb51, ucf101"):
        dataset("hmdb")
