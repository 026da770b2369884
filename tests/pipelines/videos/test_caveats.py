"""What a user must know of a data set before a score means anything."""

from __future__ import annotations

from pipelines.videos.caveats import equal_names
from pipelines.videos.list_files import read_labels


def test_namesakes_in_kinetics_400(shared_data):
    labels = {path.stem: read_labels(path) for path in (shared_data / "labels").glob("*.csv")}
    k400 = labels["kinetics_400_labels"]
    assert len(equal_names(labels["ucf_101_labels"], k400)) == 22
    assert equal_names(labels["hmdb_51_labels"], k400) == ["pushup", "situp"]
    assert len(set(labels["kinetics_600_labels"]) - set(k400)) == 232  # by string, case counts
    assert not any(equal_names(labels[f"ZS_split{i}_K600"], k400) for i in (1, 2, 3))
