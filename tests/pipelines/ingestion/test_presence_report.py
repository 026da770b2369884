"""What the check of a data set says: every status is shown and counted, and the filtered lists are right."""

from __future__ import annotations

import json

import pytest

from pipelines import check_data
from pipelines.videos.inputs import find_inputs, find_listed
from pipelines.videos.list_choice import wanted_lists
from pipelines.videos.list_folder import ListFolder

CLASSES = ("kick ball", "kick", "pushup")


def test_every_status_is_shown_counted_and_written(world, run, capsys):
    assert run("--out", str(world / "out")) == 1
    report = json.loads((world / "out" / "check.json").read_text())
    assert (report["schema"], report["dataset"], report["complete"], report["decoded"]) == (1, "hmdb51", False, False)
    counts = {
        name: [split[key] for key in ("listed", *("present", "renamed", "missing", "corrupt"))]
        for name, split in report["splits"].items()
    }
    assert counts == {"val1": [5, 1, 2, 1, 1], "val2": [2, 1, 0, 0, 1], "train1_few_shot_2": [2, 1, 0, 1, 0]}
    assert report["splits"]["val1"]["classes"]["pushup"] == {"missing": 1, "renamed": 1, "corrupt": 1}
    assert report["splits"]["val1"]["files"].keys() == {"val1.txt", "hmdb_51_labels.csv"}
    statuses = {row["path"]: (row["status"], row["reason"], row["found"]) for row in report["not_present"]}
    assert statuses == {
        "b.avi": ("renamed", "other case: kick/b.AVI", "kick/b.AVI"),
        "c.avi": ("missing", f"no such file below {world / 'videos'}", None),
        "d.avi": ("renamed", "other suffix: d.mp4", "d.mp4"),
        "e.avi": ("corrupt", "the file is empty", "e.avi"),
        "g.avi": ("corrupt", "a web page, not a video (a failed download?)", "g.avi"),
        "h.avi": ("missing", f"no such file below {world / 'videos'}", None),
    }
    assert report["extra"] == ["extra.mp4"]
    said = capsys.readouterr().out
    assert "val1                    5        1        2        1        1\n" in said
    assert "classes with missing or corrupt videos: 2 of 3\n  pushup: 3 of 4\n  kick ball: 1 of 2\n" in said
    assert "renamed: 2\n  1 x other case\n      b.avi is kick/b.AVI\n" in said
    assert "extra: 1 videos that these lists do not name\n  extra.mp4\n" in said


def test_what_a_user_must_know(world, run, capsys):
    run()
    said = capsys.readouterr().out
    assert "note: leak: val2 shares videos: 1 with train1_few_shot_2; what trained" in said
    assert "note: 1 of the 3 classes are classes of Kinetics-400 by name (pushup): zero-shot" in said
    assert "note: HMDB-51's names 'kick ball' and 'kick' are swapped, as published" in said
    assert "note: lists that are not here: val3, train1_few_shot_4, " in said
    assert "lists/val1.txt has 5 videos, the published list 1530" in said
    assert not (world / "check.json").exists()


def test_filtered_lists_are_lists_and_complete(world, run, capsys):
    run("--out", str(world / "out"))
    lists = ListFolder.open(world / "out" / "lists")
    assert lists.dataset.name == "hmdb51"
    assert {name: [(line.path, line.label) for line in lists.read(name).lines] for name in lists.names()} == {
        "val1": [("a.avi", 0), ("b.avi", 1), ("d.avi", 2)],
        "val2": [("f.avi", 1)],
        "train1_few_shot_2": [("f.avi", 1)],
    }
    assert lists.read("val1").classes == CLASSES
    assert check_data.main(["--lists", str(lists.place), "--root", str(world / "videos")]) == 0


def test_own_data_and_sources_in_both_parts(tmp_path, capsys):
    names = [f"{split}/{label}/film_g0{g}_c01.mp4" for split, g in (("train", 1), ("test", 2)) for label in ("a", "b")]
    for name in [*names, "test/a/film_g01_c02.mp4", "train/a/1.mp4", "test/b/1.mp4"]:
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / name).write_bytes(b"x")
    assert check_data.main(["--videos", str(tmp_path / "v"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "note: leak: test shares source videos (groups): 1 with train; their clips look alike" in said
    lists = ListFolder.open(tmp_path / "out" / "lists")
    assert {name: len(lists.read(name).lines) for name in lists.names()} == {"test": 4, "train": 3}


def test_a_group_of_several_classes_and_no_group_at_all(tmp_path, capsys):
    for name in ("train/a/film_g01_c01.mp4", "test/b/film_g01_c02.mp4", "train/a/0001.mp4", "test/b/0001.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert check_data.main(["--videos", str(tmp_path)]) == 0
    assert "(groups): 1 with train; their clips look alike" in capsys.readouterr().out


OWN = (("a.mp4", "run", "film 1", "train"), ("b.mp4", "10", "film 2", "test"), ("c.mp4", "run", "film 1", ""))


@pytest.mark.parametrize("rows", [OWN, [(*row[:3], "") for row in OWN]])
def test_filtered_own_data_keeps_groups_and_splits(tmp_path, capsys, rows):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    table = [("path", "label", "group", "split"), *rows, ("gone.mp4", "run", "film 3", "train")]
    (tmp_path / "mine.csv").write_text("".join(",".join(row) + "\n" for row in table))
    assert check_data.main(["--videos", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out")]) == 1
    lists = ListFolder.open(tmp_path / "out" / "lists")
    again = find_listed(lists, wanted_lists(lists, None)[0], tmp_path)
    none = "" if rows is OWN else "all"
    assert [(v.uri, v.label, v.group, v.split) for v in again.videos] == [(*row[:3], row[3] or none) for row in rows]


def test_videos_in_the_folder_of_their_lists_are_not_renamed(world):
    (world / "lists" / "videos").symlink_to(world / "videos")
    place = world / "lists"
    assert check_data.main(["--lists", str(place), "--dataset", "hmdb51", "--out", str(world / "out")]) == 1
    report = json.loads((world / "out" / "check.json").read_text())
    assert (report["root"], report["splits"]["val2"]["present"]) == (str(place), 1)


def test_the_published_lists_against_a_small_tree(shared_data, tmp_path, capsys):
    folder = ListFolder.open(shared_data, "hmdb51")
    found = folder.read("val1")
    for number, line in enumerate(found.lines):
        path = tmp_path / found.classes[line.label].replace(" ", "_") / line.path
        path.parent.mkdir(exist_ok=True)
        if number >= 10:
            path.write_bytes(b"x")
    lists = ["--dataset", "hmdb51", "--lists", str(shared_data), "--root", str(tmp_path)]
    assert check_data.main([*lists, "--protocol", "zero_shot"]) == 1
    said = capsys.readouterr().out
    assert "val1     1530        0     1520       10        0\n" in said
    assert "leak" not in said
    check_data.main([*lists, "--protocol", "few_shot"])
    assert "leak" not in capsys.readouterr().out  # val1 alone is its test list
    check_data.main(lists)
    said = capsys.readouterr().out
    assert "val2 shares videos: 233 with train1_few_shot_16, 36 with train1_few_shot_2" in said
    assert "2 of the 51 classes are classes of Kinetics-400 by name (pushup, situp):" in said


def test_what_was_understood_is_printed_and_written(tmp_path, capsys):
    for name in ("train_256/jump/1.mp4", "val_256/jump/2.mp4", "test/3.mp4", "val_256/jump/2.json"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / name).write_bytes(b"some bytes")
    assert check_data.main(["--videos", str(tmp_path / "v"), "--out", str(tmp_path / "out")]) == 0
    lines = list(find_inputs([tmp_path / "v"]).understanding.lines())
    assert capsys.readouterr().out.splitlines()[:2] == lines
    assert json.loads((tmp_path / "out" / "check.json").read_text())["understood"] == lines
    assert "train_256 (train) 1" in lines[0]
    assert lines[1].startswith(
        "1 file passed over: .json 1 (val_256/jump/2.json); 1 video without a class (test/3.mp4)"
    )
