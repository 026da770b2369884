"""The summary of an ingest."""

from __future__ import annotations

from pipelines.ingestion.ingest import IngestReport
from pipelines.ingestion.summary import summary


def test_reasons_are_counted_by_kind_with_a_few_examples():
    bad = [(f"{n}.mp4", f"truncated: its header says {n} frames") for n in range(5)] + [("x.mp4", "the file is empty")]
    report = IngestReport("out/manifest.parquet", 4, 10, 0, tuple(bad), "abc", 2.0, (("10.0.0.1", 3), ("10.0.0.2", 7)))
    assert summary(report).splitlines() == [
        "4 clips stored, 6 of 10 videos set aside (10 decoded now, 0 kept; 2.0 s)",
        "decoded on 10.0.0.1 (3), 10.0.0.2 (7)",
        "  5 x truncated",
        *(f"      {n}.mp4: truncated: its header says {n} frames" for n in range(3)),
        "      and 2 more",
        "  1 x the file is empty",
        "      x.mp4: the file is empty",
        "manifest  out/manifest.parquet",
        "digest    abc",
    ]
