"""Rank text-video retrieval both ways, with fair ties, block by block: the metrics of the papers' tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipelines.training.errors import DivergedError

BLOCK = 512
"""Queries that are compared with the whole gallery at once."""


def ranks(queries: np.ndarray, gallery: np.ndarray, truth: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Return the rank of the true item of each query by dot product, 1 being best.

    ``1 + #{s > s_true} + #{other s == s_true} / 2``: ties count half, whatever their order, so that a model that gives
    all the same score gains nothing. Equal rows of the gallery tie exactly.

    Args:
        queries: (Q,E).
        gallery: (G,E).
        truth: (Q,) row of the gallery that each query should find.
        block: queries compared at once; memory is about ``16 block G`` bytes besides the arguments.

    Returns:
        float64 (Q,).

    Raises:
        DivergedError: a feature is not finite.
    """
    return _ranks(queries, gallery, np.arange(len(gallery)), truth, block)


def retrieval_metrics(
    video: np.ndarray,
    text: np.ndarray,
    owner: np.ndarray,
    *,
    lost_videos: int = 0,
    lost_captions: int = 0,
    block: int = BLOCK,
) -> dict[str, dict[str, float]]:
    """Return R@1, R@5, R@10 in percent, and median (MdR) and mean (MnR) rank, of text to video and of video to text.

    t2v: every caption is a query among the videos. v2t: every video is a query among the videos' caption sets, each of
    which scores as its best caption does (CLIP4Clip's evaluation of several sentences a video); both rank among N.
    A listed video that cannot be decoded counts as wrong, as a query and with each of its captions, at the worst rank
    N + ``lost_videos``; it takes no place in the ranks of other queries.

    Args:
        video: L2-normalised features (N,E) of the decodable videos.
        text: L2-normalised features (M,E) of their captions; the same caption must have the same features.
        owner: (M,) video of each caption; every video has one at least.
        lost_videos: undecodable videos.
        lost_captions: captions of these.
        block: see ``ranks``.

    Raises:
        DivergedError: a feature is not finite.
    """
    if set(np.unique(owner)) != set(range(len(video))):
        raise ValueError(f"captions belong to {len(np.unique(owner))} of {len(video)} videos")
    worst = len(video) + lost_videos
    by_text = ranks(text, video, owner, block)
    by_video = _ranks(video, text, owner, np.arange(len(video)), block)
    return {"t2v": _summary(by_text, lost_captions, worst), "v2t": _summary(by_video, lost_videos, worst)}


def _ranks(queries: np.ndarray, gallery: np.ndarray, group: np.ndarray, truth: np.ndarray, block: int) -> np.ndarray:
    """Rank among groups of the gallery's rows, 0 to the last; a group scores as its best row."""
    if not (np.isfinite(queries).all() and np.isfinite(gallery).all()):
        raise DivergedError("features that are not finite (NaN) have no ranks")
    found = np.empty(len(queries))
    for start, scores in _scores(queries, gallery, group, block):
        true = truth[start : start + len(scores), None]
        own = np.take_along_axis(scores, true, axis=1)
        better, equal = (np.count_nonzero(kind, axis=1) for kind in (scores > own, scores == own))
        found[start : start + len(scores)] = 1 + better + (equal - 1) / 2
    return found


def _scores(
    queries: np.ndarray, gallery: np.ndarray, group: np.ndarray, block: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``start`` and the scores (block, groups) of the queries from ``start`` on.

    Distinct rows are multiplied once: a matrix product may round equal rows differently, depending on their place.
    """
    distinct, row = np.unique(gallery, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    row, first = row.reshape(-1)[order], np.flatnonzero(np.diff(group[order], prepend=-1))
    single = len(first) == len(row)
    for start in range(0, len(queries), block):
        scores = (queries[start : start + block] @ distinct.T)[:, row]
        yield start, scores if single else np.maximum.reduceat(scores, first, axis=1)


def _summary(found: np.ndarray, lost: int, worst: int) -> dict[str, float]:
    queries = len(found) + lost
    recall = {f"R@{k}": 100 * float((found <= k).sum()) / queries for k in (1, 5, 10)}
    every = np.append(found, np.full(lost, float(worst)))
    return recall | {"MdR": float(np.median(every)), "MnR": float(every.mean())}
