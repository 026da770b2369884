"""What an earlier ingest left is kept where its file, and its shard, are as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.ingestion.clip_facts import ClipFacts, FileStat
from pipelines.ingestion.earlier import Earlier, read_earlier, still_valid
from pipelines.ingestion.parts import Part
from pipelines.shards.shard_file import Shard

STAT = FileStat(3, 10)
CHANGED = FileStat(3, 11)
SHARD = Shard("a.arrow", 1, (2, 16, 16, 3), 100, "sha")
OK = ClipFacts(clip_id="c", status="ok", bytes=3, mtime_ns=10, shard="a.arrow", row=0)
BAD = ClipFacts.quarantined("c", "damaged", STAT)


@pytest.mark.parametrize(
    ("facts", "stat", "size", "retry", "kept"),
    [
        (OK, STAT, 100, False, True),
        (OK, STAT, 100, True, True),
        (OK, CHANGED, 100, False, False),
        (OK, None, 100, False, False),
        (OK, STAT, 99, False, False),
        (OK, STAT, None, False, False),
        (BAD, STAT, None, False, True),
        (BAD, STAT, None, True, False),
        (BAD, CHANGED, None, False, False),
    ],
)
def test_what_is_still_valid(facts, stat, size, retry, kept):
    earlier = Earlier({"c": facts}, {"a.arrow": SHARD})
    sizes = {} if size is None else {"a.arrow": size}
    assert still_valid(earlier, {"c": stat}, sizes, retry=retry) == ({"c": facts} if kept else {})


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [
        (BAD, OK, OK),
        (OK, BAD, OK),  # of the same file: it decoded once
        (OK, replace(BAD, mtime_ns=11), replace(BAD, mtime_ns=11)),
        (BAD, replace(BAD, error="truncated"), replace(BAD, error="truncated")),
    ],
)
def test_the_better_of_two_parts_is_known(tmp_path, first, second, known):
    (tmp_path / ".parts").mkdir()
    Part([first], [SHARD]).write(tmp_path, "1")
    Part([second], []).write(tmp_path, "2")
    assert read_earlier(tmp_path) == Earlier({"c": known}, {"a.arrow": SHARD})
