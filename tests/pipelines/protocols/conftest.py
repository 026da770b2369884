"""Lists and captions that the tests of this room share."""

from __future__ import annotations

import pytest

from tests.helpers.fakes import folder_clips
from tests.helpers.protocol_cases import NAMES, config, label_file, lines


@pytest.fixture
def lists(tmp_path):
    """Own lists in the published form, of all protocols; base-to-novel's have 4 shots."""
    base, novel = NAMES[:2], NAMES[2:]
    label_file(tmp_path, "labels.csv", NAMES)
    label_file(tmp_path, "base_labels.csv", base)
    label_file(tmp_path, "novel_labels.csv", novel)
    for name, names, part in (
        ("fs_base_s1_train", base, slice(0, 4)),
        ("fs_base_s2_train", base, slice(2, 6)),
        ("base_val", base, slice(6, 10)),
        ("novel_val", novel, slice(0, 10)),
        ("train1_few_shot_2", NAMES, slice(0, 2)),
        ("train", NAMES, slice(0, 6)),
        ("val1", NAMES, slice(6, 10)),
        ("val2", NAMES, slice(1, 5)),
    ):
        (tmp_path / f"{name}.txt").write_text(lines(names, part))
    return tmp_path


@pytest.fixture
def captioned(tmp_path):
    (tmp_path / "captions.csv").write_text(
        "video,caption,split\n"
        + "".join(f"{c.uri},{c.label} {n},{'train' if n < 30 else 'test'}\n" for n, c in enumerate(folder_clips()))
        + f"{folder_clips()[0].uri},another,train\n"
    )
    return config("retrieval", captions=str(tmp_path / "captions.csv"))
