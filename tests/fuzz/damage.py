"""Ways in which files and JSON values are damaged, drawn from a seed; and how long one case may take."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

KINDS = 10
CASES = max(5, int(os.environ.get("FUZZ_CASES", "100")) // KINDS)
"""Cases of each kind: ``make fuzz`` asks for 2,000 in all, ``make test`` for 100."""
CASE_S = 30.0

seeded = settings(
    max_examples=CASES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


@contextmanager
def deadline() -> Iterator[None]:
    """End a case that hangs, with an error."""

    def late(*_: object) -> None:
        raise TimeoutError(f"the case took more than {CASE_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, CASE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Draw a damaged copy: flipped bytes, zeros, a cut, a part twice or left out, other bytes in between."""
    places = st.integers(0, max(0, len(content) - 1))

    @st.composite
    def draw(draw):
        data = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            at, length = draw(places), draw(st.sampled_from([1, 2, 4, 16, 512]))
            way = draw(st.sampled_from(["flip", "zero", "cut", "twice", "out", "in", "ones"]))
            if way == "flip" and at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            elif way == "zero":
                data[at : at + length] = bytes(len(data[at : at + length]))
            elif way == "ones":
                data[at : at + length] = b"\xff" * len(data[at : at + length])
            elif way == "cut":
                del data[at:]
            elif way == "twice":
                data[at:at] = data[at : at + length]
            elif way == "out":
                del data[at : at + length]
            else:
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
        return bytes(data)

    return draw()


WRONG_VALUES = st.sampled_from(
    [None, True, -1, 0, 10**30, -(10**30), 1e300, float("nan"), float("inf"), "", "x" * 5000, "\ud83d", "../x", "\0",
     [], [[[[]]]], {}, {"a": {"a": 1}}, [None], ["x", 1], {"": ""}, 1.5, "1", 2**63]
)  # fmt: skip


def changed(value: object) -> st.SearchStrategy[object]:
    """Draw a copy of a JSON value in which some values are others, left out, or stand in another place."""

    @st.composite
    def draw(draw):
        def visit(part: object) -> object:
            if draw(st.integers(0, 7)) == 0:
                return draw(WRONG_VALUES)
            if isinstance(part, dict):
                return {key: visit(item) for key, item in part.items() if draw(st.integers(0, 15))}
            if isinstance(part, list):
                return [visit(item) for item in part]
            return part

        return visit(value)

    return draw()
