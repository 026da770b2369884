"""Ranks stored features by their cosine with queries: exactly, block by block, in constant memory."""

# Shapes: Q query, N row of a block, E length of a feature.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.prediction.stored_features import Block, Embeddings
from vlmodels.errors import UserError

AT_ONCE = 1024
"""Queries that are compared with a block at once: 32 MiB of scores."""
_ROUNDING = 1e-5
"""More than two float32 sums of the same cosine can differ by, whatever the order of their terms."""
_OFF = 0.01
"""More than the square of a normalised feature's length is away from 1, also where it was stored as float16 once."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A video, or some seconds of one, that fits a query.

    Attributes:
        video: path or URI, as it was given.
        start: seconds; None for the video's start.
        end: seconds; None for its end.
        score: cosine of its feature and the query's.
        row: its place among the features of the folder.
    """

    video: str
    start: float | None
    end: float | None
    score: float
    row: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best hits of each query, best first, and what was searched.

    Attributes:
        hits: at most ``topk`` of each query, in the order of the queries.
        searched: rows with a feature that were compared.
        failed: rows without a feature: the video could not be read.
        broken: rows that were left out, as their feature is not finite or not normalised.
        damaged: files that could not be read, or not to their end, each with the reason.
    """

    hits: tuple[tuple[Hit, ...], ...]
    searched: int
    failed: int
    broken: int
    damaged: dict[str, str]


def rank(
    embeddings: Embeddings, queries: NDArray[np.float32], topk: int = 10, *, every_window: bool = False
) -> Ranking:
    """Return the ``topk`` best rows for each query.

    The order is exact and the same each time: float32 finds the candidates, float64 ranks them, and of equal ones the
    first in the folder comes first.

    Args:
        embeddings: the folder.
        queries: L2-normalised features (Q,E).
        topk: hits of a query.
        every_window: list a video as often as it is among the best; else once, with its best window.

    Raises:
        UserError: ``topk`` is not positive, or the queries have another length or are not finite.
    """
    if topk < 1:
        raise UserError(f"topk={topk}: choose 1 or more")
    if queries.ndim != 2 or queries.shape[1] != embeddings.identity.dim:
        raise UserError(f"queries have the shape {queries.shape}, the features {embeddings.identity.dim} numbers")
    if not np.isfinite(queries).all():
        raise UserError("the features of the queries are not finite; the adapter is damaged: copy or train it again")
    queries = np.ascontiguousarray(queries, np.float32)
    best = [_Best(topk, every_window) for _ in queries]
    searched = broken = 0
    for block in embeddings.blocks():
        searched += len(block.features)
        broken += _search_block(block, queries, best, every_window)
    hits = tuple(tuple(found.hits) for found in best)
    return Ranking(hits, searched - broken, embeddings.failed, broken, dict(embeddings.damaged))


def _search_block(block: Block, queries: NDArray[np.float32], best: Sequence[_Best], every_window: bool) -> int:
    """Add the hits of a block to ``best``; return how many of its rows are broken."""
    features, groups = block.features, None
    broken = np.flatnonzero(~_whole(features))
    for start in range(0, len(queries), AT_ONCE):
        some = queries[start : start + AT_ONCE]
        with np.errstate(over="ignore", invalid="ignore"):
            scores = some @ features.T
        scores[:, broken] = -np.inf
        beaten = scores.max(axis=1) >= [found.least - _ROUNDING for found in best[start : start + AT_ONCE]]
        for number in np.flatnonzero(beaten).tolist():
            if groups is None and not every_window:
                groups = _codes(block.facts["video"])
            found = best[start + number]
            rows = _candidates(scores[number], groups, found.topk, found.least)
            # not a matrix product, which may round equal rows differently, depending on their place
            exact = (features[rows].astype(np.float64) * some[number]).sum(axis=1)
            found.add(_hits(block, rows, exact))
    return len(broken)


def _whole(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows (N) are finite and of length 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ne,ne->n", features, features)
        found: NDArray[np.bool_] = np.abs(squares - 1) <= _OFF
    return found


def _codes(videos: pa.Array) -> NDArray[np.int64]:
    """Return a number for each row (N), equal for equal videos."""
    coded = videos if pa.types.is_dictionary(videos.type) else videos.dictionary_encode()
    codes: NDArray[np.int64] = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _candidates(
    scores: NDArray[np.float32], groups: NDArray[np.int64] | None, topk: int, least: float
) -> NDArray[np.intp]:
    """Return the rows that can be among the ``topk`` best of a block's ``scores`` (N); of each group its best."""
    rows = np.flatnonzero((scores >= least - _ROUNDING) & np.isfinite(scores))
    if groups is not None and len(rows) > 1:
        codes = groups[rows]
        top = np.full(int(codes.max()) + 1, -np.inf, np.float32)
        np.maximum.at(top, codes, scores[rows])
        rows = rows[scores[rows] >= top[codes] - _ROUNDING]
        values = top[np.isfinite(top)]
    else:
        values = scores[rows]
    if len(values) > topk:
        rows = rows[scores[rows] >= np.partition(values, -topk)[-topk] - _ROUNDING]
    return rows


def _hits(block: Block, rows: NDArray[np.intp], scores: NDArray[np.float64]) -> Iterator[Hit]:
    facts = block.facts.take(pa.array(rows)).to_pylist()
    for row, fact, score in zip(rows.tolist(), facts, scores.tolist(), strict=True):
        yield Hit(fact["video"], fact["start"], fact["end"], score, block.first + row)


class _Best:
    """The best hits of a query so far."""

    def __init__(self, topk: int, every_window: bool) -> None:
        self.topk, self._every_window = topk, every_window
        self.hits: list[Hit] = []

    @property
    def least(self) -> float:
        """The score that a hit has to have, to be among the best."""
        return self.hits[-1].score if len(self.hits) == self.topk else -np.inf

    def add(self, found: Iterator[Hit]) -> None:
        """Take in hits, of which the best are kept."""
        ordered = sorted([*self.hits, *found], key=lambda hit: (-hit.score, hit.row))
        if not self._every_window:
            first: dict[str, Hit] = {}
            for hit in ordered:
                first.setdefault(hit.video, hit)
            ordered = list(first.values())
        self.hits = ordered[: self.topk]
