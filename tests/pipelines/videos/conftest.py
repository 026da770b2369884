"""Folders of lists and videos that the tests of this room share."""

from __future__ import annotations

import gzip

import pytest

from tests.helpers.list_files import LABEL_FILE, put, write_labels


@pytest.fixture
def repository(tmp_path):
    """A published repository in small: labels with CRLF, lists next to a README and requirements."""
    root = tmp_path / "repo"
    put(root / "requirements.txt", "torch==1.0\n")
    write_labels(root / "labels" / "hmdb_51_labels.csv", ("kick ball", "kick", "run"), "\r\n")
    write_labels(root / "labels" / "hmdb_51_base_labels.csv", ("run",), "\r\n")
    write_labels(root / "labels" / "hmdb_51_novel_labels.csv", ("kick ball", "kick"), "\r\n")
    splits = root / "splits" / "hmdb_splits"
    put(splits / "val1.txt", "a_[x]#1_kick_ball.avi 1\r\nb_(HQ)&;~@!+_kick.avi 0\r\nr_run.avi 2")  # no final newline
    put(splits / "val2.txt.gz", gzip.compress(b"t_run.avi 2\n"))
    put(splits / "train1_few_shot_2.txt", "t_run.avi 2\n")
    both = root / "splits" / "base2novel_splits" / "hmdb_splits"
    put(both / "fs_base_s1_train.txt", "t_run.avi 0\n")
    put(both / "base_val.txt", "r_run.avi 0\n")
    put(both / "novel_val.txt", "a_[x]#1_kick_ball.avi 1\nb_(HQ)&;~@!+_kick.avi 0\n")
    for name in ("a_[x]#1_kick_ball.avi", "b_(HQ)&;~@!+_kick.avi", "r_run.avi", "t_run.avi"):
        put(tmp_path / "videos" / name)
    return root


@pytest.fixture
def world(tmp_path):
    """Three listed videos (one in ``videos/``, one in a class folder), labels and a list."""
    put(tmp_path / "a b #1 [x] & é.mp4")
    put(tmp_path / "videos" / "-b.avi")
    put(tmp_path / "Typing" / "v_Typing_g24_c04.avi")
    put(tmp_path / "labels.csv", LABEL_FILE)
    put(tmp_path / "val.txt", "a b #1 [x] & é.mp4 2\r\n\r\n-b.avi 1\r\nv_Typing_g24_c04.avi 0")
    return tmp_path
