"""Features in a folder: what is written is read, videos without features among them, and damage is named."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.prediction.embeddings import Embedding, read_embeddings, remove_rows, write_about, write_part
from vlmodels.errors import UserError


def write(folder, dim=3):
    write_about(folder, {"dim": dim})
    rows = [
        Embedding("a.mp4", None, None, np.float32([1, 0, 0])),
        Embedding("bad.mp4", reason="broken"),
        Embedding("a.mp4", 1.0, 2.5, np.float32([0, 1, 0])),
    ]
    write_part(folder, 0, rows)
    write_part(folder, 1, rows[1:2])


def read(folder):
    return [(table.to_pylist(), features.tolist()) for table, features in read_embeddings(folder)]


def test_videos_and_their_features(tmp_path):
    write(tmp_path)
    (rows, features), (none, empty) = read(tmp_path)
    assert [(row["video"], row["start"], row["end"], row["status"]) for row in rows] == [
        ("a.mp4", None, None, "ok"), ("a.mp4", 1.0, 2.5, "ok"),
    ]  # fmt: skip
    assert features == [[1, 0, 0], [0, 1, 0]]
    assert (none, empty) == ([], [])


def test_rows_are_removed_by_video_and_times(tmp_path):
    write(tmp_path)
    remove_rows(tmp_path, 0, {("a.mp4", None, None), ("b.mp4", None, None)})
    remove_rows(tmp_path, 7, {("a.mp4", None, None)})
    assert read(tmp_path)[0][1] == [[0, 1, 0]]


def test_damage_is_named(tmp_path):
    with pytest.raises(UserError, match="no embeddings there"):
        read(tmp_path)
    write(tmp_path, dim=4)
    with pytest.raises(UserError, match="not of length 4"):
        read(tmp_path)
    (tmp_path / "part-000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"part-000000\.parquet is damaged"):
        read(tmp_path)
    (tmp_path / "embeddings.json").write_text("[")
    with pytest.raises(UserError, match=r"embeddings\.json is damaged"):
        read(tmp_path)
