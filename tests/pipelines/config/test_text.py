"""Text that scripts print."""

from __future__ import annotations

from pipelines.config.text import aligned, plural


def test_nouns_follow_their_counts():
    assert [plural(n, "worker") for n in (0, 1, 3)] == ["0 workers", "1 worker", "3 workers"]


def test_tables_are_aligned():
    rows = [("name", "n", "text"), ("a", "10", "x"), ("longer", "1", "")]
    assert list(aligned(rows, left=(0, 2))) == [
        "name     n  text",
        "----------------",
        "a       10  x",
        "longer   1",
    ]
