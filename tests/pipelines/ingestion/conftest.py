"""A published data set in small."""

from __future__ import annotations

import pytest

from pipelines import check_data

CLASSES = ("kick ball", "kick", "pushup")


@pytest.fixture
def world(tmp_path):
    """Lists of a published data set in small, and videos of which two are as listed."""
    labels = tmp_path / "lists"
    labels.mkdir()
    (labels / "hmdb_51_labels.csv").write_text("id,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(CLASSES)))
    (labels / "kinetics_400_labels.csv").write_text("id,name\n0,push up\n1,abseiling\n")
    (labels / "val1.txt").write_text("a.avi 0\nb.avi 1\nc.avi 2\nd.avi 2\ne.avi 2\n")
    (labels / "val2.txt").write_text("f.avi 1\ng.avi 2\n")
    (labels / "train1_few_shot_2.txt").write_text("f.avi 1\nh.avi 0\n")
    videos = tmp_path / "videos"
    for name in ("a.avi", "kick/b.AVI", "d.mp4", "f.avi", "extra.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_bytes(b"some bytes")
    (videos / "e.avi").write_bytes(b"")
    (videos / "g.avi").write_bytes(b"<!DOCTYPE html>")
    return tmp_path


@pytest.fixture
def run(world):
    """Check the lists of ``world``, with more arguments; return the exit code."""
    arguments = ["--dataset", "hmdb51", "--lists", str(world / "lists"), "--root", str(world / "videos")]
    return lambda *more: check_data.main([*arguments, *more])
