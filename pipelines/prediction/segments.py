"""Join the answers of overlapping windows into segments of one label.

At each instant the probabilities of all windows that show it are averaged; the most probable label is that of the
instant, or "none of these" if even that is below the threshold. Neighbouring instants of one label are a segment; its
probability is the mean over its time. An instant that no window shows has no label, and two segments on its sides are
not joined.
"""

# Shapes: C class.

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmodels.predictor import Answer
from vlmodels.span import Span

NONE = "none of these"
"""What people read where a model knows no answer; in data the ``status`` says it, as a class may have this name."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Seconds of one label.

    Attributes:
        start: its first second.
        end: the second after it.
        label: a class, or ``NONE``.
        probability: mean over its time of the label's probability; of ``NONE`` that of the most probable class.
        none: whether it is none of the classes.
    """

    start: float
    end: float
    label: str
    probability: float
    none: bool = False

    @property
    def status(self) -> str:
        """``ok``, or ``none``."""
        return "none" if self.none else "ok"


class Segmenter:
    """Takes windows in the order of their starts, and keeps only those that the next one may overlap.

    Args:
        decide: the answer for the mean probabilities (C,) of an instant.
    """

    def __init__(self, decide: Callable[[NDArray[np.float32]], Answer]) -> None:
        self._decide = decide
        self._open: list[tuple[Span, NDArray[np.float32]]] = []
        self._done = 0.0
        self._segments: list[Segment] = []

    def add(self, span: Span, probabilities: NDArray[np.float32]) -> None:
        """Add a window and its probabilities (C,)."""
        self._close(span.start)
        self._open.append((span, probabilities))

    def finish(self) -> Sequence[Segment]:
        """Return all segments, in order; no window may follow."""
        self._close(max((span.end for span, _ in self._open), default=0.0))
        return self._segments

    def _close(self, until: float) -> None:
        """Label the instants before a second; no window that follows shows them."""
        edges = {edge for span, _ in self._open for edge in (span.start, span.end) if self._done < edge < until}
        bounds = [self._done, *sorted(edges), until]
        for start, end in itertools.pairwise(bounds):
            rows = [row for span, row in self._open if span.start <= start and end <= span.end]
            if rows and start < end:
                self._label(start, end, rows)
        self._open = [(span, row) for span, row in self._open if span.end > until]
        self._done = until

    def _label(self, start: float, end: float, rows: list[NDArray[np.float32]]) -> None:
        mean: NDArray[np.float32] = np.stack(rows).mean(axis=0, dtype=np.float64).astype(np.float32)
        answer = self._decide(mean)
        best, none = answer.predictions[0], answer.none_of_these
        label, probability = NONE if none else best.label, best.probability
        last = self._segments[-1] if self._segments else None
        if last and (last.end, last.label, last.none) == (start, label, none):
            earlier, later = last.end - last.start, end - start
            probability = (last.probability * earlier + probability * later) / (earlier + later)
            start = last.start
            self._segments.pop()
        self._segments.append(Segment(start, end, label, probability, none))
