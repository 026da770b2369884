"""The toy world on disk: valid lists, the same files every time, nothing half-written, only what is missing."""

import csv
import json
import re
from pathlib import Path

import decord
import pytest
import torch

import llm_descriptions
from pipelines.toyworld.clips import FRAMES, SIDE, TOY_DATASETS, Dice, compose, draw_clip, toy_classes
from pipelines.toyworld.draw import COLOURS, KINDS, SCENES
from pipelines.toyworld.pairs import captions_of, shown_in
from pipelines.toyworld.stills import make_stills
from pipelines.toyworld.world import make_world, toy_descriptions, unseen_clips, write_clips, write_video
from pipelines.videos.captions import read_captions
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.toy import unknown_words

# Fewer clips than the real lists' 16 a class, for speed.
SMALL = {"train_per_class": 3, "test_per_class": 1, "shots": 2, "workers": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), "toy-ssv2", **SMALL)


def read_list(path: Path) -> list[tuple[str, int]]:
    return [(name, int(label)) for name, label in (line.split() for line in path.read_text().splitlines())]


def read_labels(path: Path) -> list[str]:
    rows = list(csv.DictReader(path.open(newline="")))
    assert [int(row["id"]) for row in rows] == list(range(len(rows)))
    return [row["name"] for row in rows]


def test_every_listed_clip_exists_under_its_true_class(world):
    full = read_labels(world / "labels.csv")
    lists = {path.stem: read_list(path) for path in world.glob("*.txt")}
    assert set(lists) == {"fs_base_s1_train", "fs_base_s2_train", "fs_base_s3_train", "base_val", "novel_val"}
    for name, rows in lists.items():
        names = read_labels(world / f"{'novel' if name == 'novel_val' else 'base'}_labels.csv")
        for clip, label in rows:
            assert (world / "videos" / clip).is_file()
            assert full[int(clip[1:3])] == names[label]


def test_base_and_novel_share_neither_classes_nor_clips(world):
    base, novel = read_labels(world / "base_labels.csv"), read_labels(world / "novel_labels.csv")
    assert (len(base), len(novel)) == (20, 10)
    assert not set(base) & set(novel)
    assert sorted(base + novel) == sorted(read_labels(world / "labels.csv"))
    train = {clip for draw in (1, 2, 3) for clip, _ in read_list(world / f"fs_base_s{draw}_train.txt")}
    tests = {clip for part in ("base", "novel") for clip, _ in read_list(world / f"{part}_val.txt")}
    assert not train & tests
    assert not any(
        clip.startswith(f"c{i:02d}_")
        for i, c in enumerate(toy_classes("toy-ssv2"))
        if c.split == "novel"
        for clip in train
    )


def test_few_shot_draws_hold_sixteen_a_class_and_differ(tmp_path):
    folder = make_world(tmp_path, "toy-ucf", write=lambda clips, workers: None)
    draws = [read_list(folder / f"fs_base_s{draw}_train.txt") for draw in (1, 2, 3)]
    for rows in draws:
        labels = [label for _, label in rows]
        assert [labels.count(label) for label in range(20)] == [16] * 20
        assert len(set(rows)) == 320
    assert len({tuple(rows) for rows in draws}) == 3


def test_every_manner_and_direction_occurs_in_base_and_no_appearance_pair_twice():
    motion = TOY_DATASETS["toy-ssv2"]
    for field in ("manner", "direction"):
        assert {getattr(c, field) for c in motion} == {getattr(c, field) for c in motion if c.split == "base"}
    appearance = TOY_DATASETS["toy-ucf"]
    assert len({(c.kind, c.scene) for c in appearance}) == len({c.name for c in appearance}) == 40


def test_clips_open_with_decord_and_show_what_was_drawn(world):
    reader = decord.VideoReader(str(world / "videos" / "c00_002.mp4"))
    decoded = reader.get_batch(range(len(reader))).asnumpy().astype(float)
    drawn = draw_clip(toy_classes("toy-ssv2")[0], "0/2").numpy()
    assert decoded.shape == (FRAMES, SIDE, SIDE, 3)
    assert abs(decoded - drawn).mean() < 8


def test_two_workers_and_one_write_the_same_bytes(world, tmp_path):
    some = {"c03_002.mp4", "c29_003.mp4"}

    def write_some(clips, workers):
        write_clips([clip for clip in clips if clip.path.name in some], workers)

    alone = make_world(tmp_path, "toy-ssv2", **SMALL | {"workers": 1}, write=write_some)
    for name in some:
        assert (alone / "videos" / name).read_bytes() == (world / "videos" / name).read_bytes()
    for path in (*world.glob("*.txt"), world / "captions.json"):
        assert (alone / path.name).read_bytes() == path.read_bytes()


def test_rerun_makes_only_what_is_missing(world):
    written = []

    def note(clips, workers):
        written.extend(clips)

    make_world(world.parent, "toy-ssv2", **SMALL, write=note)
    assert written == []
    mark = world / "world.json"
    content = json.loads(mark.read_text())
    lost = world / "videos" / "c00_001.mp4"
    kept = lost.read_bytes()
    mark.write_text(json.dumps({**content, "complete": False}))
    lost.unlink()
    make_world(world.parent, "toy-ssv2", **SMALL, write=note)
    assert [clip.path for clip in written] == [lost]
    assert json.loads(mark.read_text())["complete"]
    lost.write_bytes(kept)


def test_a_clip_cut_off_while_being_written_never_bears_its_name(tmp_path):
    frames = torch.zeros(4, SIDE, SIDE, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"shape|channels|format"):
        write_video(torch.cat([frames, frames], -1), tmp_path / "clip.mp4")
    assert not (tmp_path / "clip.mp4").exists()


def test_other_settings_make_the_clips_anew(tmp_path):
    folder = make_world(tmp_path, "toy-ssv2", **SMALL, write=lambda clips, workers: [c.path.touch() for c in clips])
    (folder / "videos" / "mine.mp4").touch()

    def write_new(clips, workers):
        for clip in clips:
            clip.path.write_text("new")

    make_world(tmp_path, "toy-ssv2", **SMALL, seed=1, write=write_new)
    assert (folder / "videos" / "c00_000.mp4").read_text() == "new"
    assert (folder / "videos" / "mine.mp4").exists()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("toy-ufc", {}, "did you mean 'toy-ucf'"),
        ("toy-ucf", {"train_per_class": 1, "shots": 2}, "less than the 2 shots"),
    ],
)
def test_mistakes_are_named(tmp_path, name, settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make_world(tmp_path, name, **settings)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file"))):
        make_world(tmp_path / "file", "toy-ucf")


def test_unseen_clips_are_new_and_bear_their_class(world, tmp_path):
    listed = {path.read_bytes() for path in (world / "videos").glob("*.mp4")}
    clips = unseen_clips(tmp_path, "toy-ssv2", count=3)
    assert len({name for _, name in clips}) == 3
    for path, name in clips:
        assert path.read_bytes() not in listed
        assert name in {c.name for c in toy_classes("toy-ssv2")}


@pytest.mark.parametrize("name", TOY_DATASETS)
def test_shipped_descriptions_are_those_of_the_code(name):
    folder = Path(llm_descriptions.__file__).parent / "toy"
    for file_name, content in toy_descriptions(name).items():
        assert json.loads((folder / file_name).read_text()) == content
        assert list(content) == [str(label) for label in range(len(content))]
        assert all(len(texts) == 2 for texts in content.values())


def test_stills_are_the_same_every_time_and_never_a_clips_frame():
    first, again = make_stills(20, seed=5), make_stills(20, seed=5)
    assert torch.equal(first.pictures, again.pictures)
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.pictures, make_stills(20, seed=6).pictures)


@pytest.mark.parametrize("name", TOY_DATASETS)
def test_captions_name_what_is_drawn(name):
    """``shown_in`` rolls the dice as ``compose`` does: it names what is painted."""
    for number, toy_class in enumerate(toy_classes(name)):
        shown = shown_in(toy_class, f"0/{number}")
        frames = compose(toy_class, Dice(f"{toy_class.name}/0/{number}"))
        assert SCENES[frames.scene[0]] == shown.scene
        kinds, colours = frames.kind[0].tolist(), frames.colour[0]
        assert [KINDS[kind] for kind in kinds if kind >= 0] == [kind for _, kind in shown.things]
        for (colour, _), painted in zip(shown.things, colours, strict=False):
            assert (painted - torch.tensor(COLOURS[colour])).abs().max() < 0.3
        sideways = bool((frames.x[-1, 0] - frames.x[0, 0]).abs() > 0.3)
        assert sideways == shown.direction.startswith("from")
        assert bool((frames.opacity[:, 0] < 1).any()) == (shown.manner in {"flashing", "fading"})
        for word in (*shown.things[0], shown.manner, shown.direction):
            assert word in captions_of(toy_class, f"0/{number}", 1)[0]


def test_every_clip_has_captions_in_words_that_the_toy_clip_knows(world):
    captions = read_captions(world)
    lists = {path.stem: [clip for clip, _ in read_list(path)] for path in world.glob("*.txt")}
    assert list(captions["test"]) == sorted(lists["base_val"] + lists["novel_val"])
    assert {clip for draw in (1, 2, 3) for clip in lists[f"fs_base_s{draw}_train"]} <= set(captions["train"])
    assert not captions["train"].keys() & captions["test"].keys()
    assert {len(said) for said in captions["train"].values()} == {2, 3}
    assert {len(said) for said in captions["test"].values()} == {1}
    texts = [text for videos in captions.values() for said in videos.values() for text in said]
    assert unknown_words(" ".join(texts)) == []
    backbone = create("toy", weights=None, num_frames=1)
    assert all(backbone.fits("X " * 10 + text) for text in texts)  # also behind learned prompts
    assert len(set(texts)) > 0.9 * len(texts)
