"""Temporary folders, and what killed processes left of theirs."""

from __future__ import annotations

import os

from pipelines.storage.scratch import scratch


def test_what_killed_processes_left_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path))
    with scratch("shards") as own:
        work = own.parent
        dead = work / own.name.replace(str(os.getpid()), "999999999")
        other = work / "other-host.999999999.shards"
        for folder in (dead, other):
            (folder / "x").mkdir(parents=True)
        with scratch("videos") as second:
            assert sorted(work.iterdir()) == sorted([own, second, other])
    assert list(work.iterdir()) == [other]
