"""Own splits saved as lists: the same videos as the protocols' own, whole groups, one clear message if too few."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import make_splits
from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.make_split import make_split
from pipelines.protocols.save import ListsRequest, make_lists, write
from pipelines.protocols.split import Source
from pipelines.videos.list_folder import ListFolder
from tests.helpers.fakes import clip
from vlmodels.errors import UserError

NAMES = ("walk a dog", "clap", "run, fast", "sit")


def clips_of(counts, seed=0):
    """Rows of classes with this many source videos of 1 to 3 clips; some cannot be decoded."""
    random_ = random.Random(seed)
    return [
        clip(f"{group}_{i}", name, group=f"{name}{group}", ok=random_.random() > 0.1)
        for name, groups in zip(NAMES, counts, strict=False)
        for group in range(groups)
        for i in range(random_.randint(1, 3))
    ]


def written(folder, clips, classes=NAMES, shots=(1, 2), seeds=(1, 2), fraction=0.3, **how):
    request = ListsRequest(seeds=seeds, shots=shots, test_fraction=fraction, **how)
    write(folder, make_lists(clips, classes, request), request, data="mine", data_digest="digest")
    return ListFolder.open(folder)


def content(split):
    tests = [(sorted((e.clip_id, t.classes[e.target]) for e in t.examples), t.classes) for t in split.tests]
    unscored = [sorted(uri for uri, _ in t.unscored) for t in split.tests]
    return split.train, split.select, split.train_classes, tests, unscored


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(1, 5),
    counts=st.lists(st.integers(8, 14), min_size=2, max_size=4),
    fraction=st.sampled_from([0.2, 0.3, 0.5]),
    holdout=st.sampled_from([0.0, 0.25]),
)
def test_protocols_take_the_same_videos_with_and_without_the_lists(tmp_path_factory, seed, counts, fraction, holdout):
    clips, place = clips_of(counts, seed), tmp_path_factory.mktemp("splits") / "lists"
    data = Source("mine", "/nowhere", tuple(clips), NAMES)
    written(place, clips, seeds=(seed, seed + 1), fraction=fraction, split_seed=seed + 3)
    for protocol in ("few_shot", "b2n", "supervised"):
        config = {"name": protocol, "shots": 2, "test_fraction": fraction, "holdout": holdout, "split_seed": seed + 3}
        without = make_split(ProtocolConfig(**config), data, seed)
        train = "train" if protocol == "supervised" else None
        listed = make_split(ProtocolConfig(**config, lists=str(place), train_list=train), data, seed)
        assert content(listed) == content(without), protocol


def test_lists_are_published_in_form_and_have_whole_groups(tmp_path):
    clips = clips_of((8, 9, 20, 22))
    lists = written(tmp_path / "lists", clips)
    names = ["base_train", "base_val", "fs_base_s1_train", "fs_base_s2_train", "novel_val", "train"]
    assert lists.names() == [*names, *(f"train{s}_few_shot_{k}" for s in (1, 2) for k in (1, 2)), "val"]
    groups = {c.uri: c.group for c in clips}
    of = {name: {groups[line.path] for line in lists.read(name).lines} for name in lists.names()}
    assert not of["train"] & of["val"]
    assert of["base_val"] | of["novel_val"] == of["val"]
    assert lists.read("train").classes == NAMES
    assert lists.read("base_val").classes == ("run, fast", "sit")  # the more frequent
    assert lists.read("novel_val").classes == ("walk a dog", "clap")
    few = [line.label for line in lists.read("train2_few_shot_2").lines]
    assert sorted(few) == [0, 0, 1, 1, 2, 2, 3, 3]
    drawn = [{line.path for line in lists.read(f"train{s}_few_shot_2").lines} for s in (1, 2)]
    assert drawn[0] != drawn[1]


def test_too_few_videos_are_one_message(tmp_path):
    clips = [clip(i, name) for name, count in (("clap", 12), ("sit", 5)) for i in range(count)]
    with pytest.raises(UserError, match=r"2 of 2 classes have fewer than 16 .*: sit \(3\), clap \(8\); .* up to 3"):
        written(tmp_path / "l", clips, ("clap", "sit"), shots=(2, 16))
    lists = written(tmp_path / "l", clips, ("clap", "sit"), shots=(2, 16), fewer_shots=True)
    assert len(lists.read("train1_few_shot_16").lines) == 11
    with pytest.raises(UserError, match="0 test videos: a split needs both"):
        written(tmp_path / "l", [clip(i, "clap", group="one") for i in range(9)], ("clap",))
    with pytest.raises(UserError, match="no list can hold it"):
        written(tmp_path / "l", [clip(i, n, uri=f"{n}{i} ") for n in NAMES for i in range(9)])


def test_base_lists_are_of_16_shots_if_those_are_asked_for(tmp_path):
    clips = [clip(i, name) for name in NAMES for i in range(8)]
    for shots, k in (((2, 4), 4), ((2, 16, 32), 16)):
        assert ListsRequest(shots=shots).base_shots == k
        lists = written(tmp_path / "l", clips, shots=shots, fraction=0.1, fewer_shots=True)
        assert len(lists.read("fs_base_s1_train").lines) == 2 * min(k, 7)


@pytest.mark.parametrize("seed", ["-1", "x", "1.5"])
def test_split_seeds_count_from_0(seed, capsys):
    with pytest.raises(SystemExit, match="2"):
        make_splits.main(["--data", "d", "--out", "o", "--split-seed", seed])
    assert f"argument --split-seed: '{seed}' is not a whole number from 0" in capsys.readouterr().err


@pytest.mark.ray
def test_the_script(small_data, tmp_path, capsys):
    command = ["--data", str(small_data), "--out", str(tmp_path / "lists"), "--seeds", "7,8", "--shots", "2"]
    command += ["--split-seed", "5"]
    assert make_splits.main(command) == 0
    assert "train8_few_shot_2.txt  8 videos of 4 classes\n" in capsys.readouterr().out
    facts = json.loads((tmp_path / "lists" / "splits.json").read_text())
    index = json.loads((small_data / "index.json").read_text())
    assert (facts["data_digest"], facts["seeds"], facts["split_seed"]) == (index["digest"], [7, 8], 5)
    assert facts["base_shots"] == 2
    assert facts["lists"]["train"] == {"videos": 16, "classes": 4}
    first = {path.name: path.read_bytes() for path in (tmp_path / "lists").iterdir()}
    assert make_splits.main(command) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "lists").iterdir()} == first
    (tmp_path / "lists" / "splits.json").unlink()
    with pytest.raises(UserError, match="was not written here"):
        make_splits.main(command)
    shutil.rmtree(tmp_path / "lists")
    with pytest.raises(UserError, match=r"no index\.json in it"):
        make_splits.main(["--data", str(tmp_path), "--out", str(tmp_path / "lists")])
    with pytest.raises(UserError, match="--test-fraction 1: choose"):
        make_splits.main([*command, "--test-fraction", "1"])
