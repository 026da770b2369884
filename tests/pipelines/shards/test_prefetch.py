"""Reading ahead keeps order and errors, and ends with its consumer."""

from __future__ import annotations

import threading

import pytest

from pipelines.shards.prefetch import prefetched


def test_prefetching_keeps_order_and_raises_here():
    assert list(prefetched(iter(range(50)))) == list(range(50))

    def broken():
        yield 1
        raise OSError("disk gone")

    items = prefetched(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(items)


def test_prefetching_thread_ends_with_its_consumer():
    items = prefetched(iter(range(10**9)))
    next(items)
    items.close()
    for thread in threading.enumerate():
        if thread.name == "prefetch":
            thread.join(timeout=5)
            assert not thread.is_alive()
