"""Features in a folder: what is written is read, videos without features among them, and damage is named."""

from __future__ import annotations

import numpy as np

from pipelines.prediction.embeddings import Embedding, remove_rows, write_about, write_part
from pipelines.prediction.stored_features import open_embeddings
from tests.helpers.feature_folders import ABOUT


def write(folder, dim=3):
    write_about(folder, ABOUT | {"dim": dim})
    rows = [
        Embedding("a.mp4", None, None, np.float32([1, 0, 0])),
        Embedding("bad.mp4", reason="broken"),
        Embedding("a.mp4", 1.0, 2.5, np.float32([0, 1, 0])),
    ]
    write_part(folder, 0, rows, dim)
    write_part(folder, 1, rows[1:2], dim)


def read(folder):
    """Videos and start of what has a feature, and the features."""
    rows, features = [], []
    for block in open_embeddings(folder).blocks():
        rows += [(row["video"], row["start"], row["end"]) for row in block.facts.to_pylist()]
        features += block.features.tolist()
    return rows, features


def test_videos_and_their_features(tmp_path):
    write(tmp_path)
    assert read(tmp_path) == ([("a.mp4", None, None), ("a.mp4", 1.0, 2.5)], [[1, 0, 0], [0, 1, 0]])
    embeddings = open_embeddings(tmp_path)
    list(embeddings.blocks())
    assert (embeddings.failed, embeddings.damaged) == (2, {})


def test_rows_are_removed_by_video_and_times(tmp_path):
    write(tmp_path)
    remove_rows(tmp_path, 0, {("a.mp4", None, None), ("b.mp4", None, None)})
    remove_rows(tmp_path, 7, {("a.mp4", None, None)})
    assert read(tmp_path) == ([("a.mp4", 1.0, 2.5)], [[0, 1, 0]])
