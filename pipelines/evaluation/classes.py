"""Score classes: class probabilities of every video, in one or more orders of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange, reduce

from pipelines.evaluation.metrics import ClassScores
from pipelines.evaluation.reading import EvalSettings, gather_rows, read_views, reorder
from pipelines.training.errors import DivergedError
from vlmodels.preprocess import eval_views

if TYPE_CHECKING:
    from pipelines.protocols.split import Example
    from pipelines.shards.clip_store import ClipStore
    from vlmodels.methods.base import Method, Output

VideoScore = tuple[np.ndarray, ...]
"""Class probabilities (C,) and features (E,) of one video; if asked for, its probabilities at another temperature."""


@torch.inference_mode()
def score_orders(
    method: Method,
    store: ClipStore,
    examples: Sequence[Example],
    orders: Sequence[str],
    settings: EvalSettings,
    *,
    temperature: float | None = None,
) -> dict[str, ClassScores]:
    """Score ``examples`` among the classes that ``method`` holds, for each order of frames; a clip is read once.

    Logits of each view become a softmax, and views are averaged, as in ViFi-CLIP's code, which MSTA's logs come from,
    and in M2-CLIP's release; none of the four papers says it.
    Each example is scored by one rank, exactly once, however many ranks there are; every rank returns the whole result.
    Scores are those of temperature 1; with ``temperature`` the result has those of it too (``ClassScores.scaled``).

    Raises:
        DivergedError: a score is not finite.
    """
    method.eval()
    rows: list[tuple[int, dict[str, VideoScore]]] = []
    for numbers, clips in read_views(store, examples, settings):
        found: dict[str, list[VideoScore]] = {}
        for order in orders:
            shown = [reorder(clip, order, examples[i].clip_id) for i, clip in zip(numbers, clips, strict=True)]
            found[order] = _score_clips(method, shown, settings, temperature)
        rows += [(i, {order: found[order][row] for order in orders}) for row, i in enumerate(numbers)]
    videos = gather_rows(rows, len(examples), settings.world)
    targets = np.array([example.target for example in examples], dtype=np.int64)
    return {order: _stacked(targets, [video[order] for video in videos]) for order in orders}


@torch.inference_mode()
def score_views(method: Method, store: ClipStore, examples: Sequence[Example], settings: EvalSettings) -> np.ndarray:
    """Return float32 logits (N,V,C) of every view of ``examples``, in their order, on every rank.

    Raises:
        DivergedError: a score is not finite.
    """
    method.eval()
    rows: list[tuple[int, np.ndarray]] = []
    for numbers, clips in read_views(store, examples, settings):
        logits = _forward(method, clips, settings).logits.float()
        of_clips: np.ndarray = rearrange(logits, "(n v) c -> n v c", n=len(clips)).cpu().numpy()
        rows += zip(numbers, of_clips, strict=True)
    videos: list[np.ndarray] = gather_rows(rows, len(examples), settings.world)
    found = np.stack(videos)
    _check_finite(found)
    return found


def _score_clips(
    method: Method, clips: Sequence[np.ndarray], settings: EvalSettings, temperature: float | None
) -> list[VideoScore]:
    """Score some videos, frames (clips,T,H,W,3) each, in one forward pass."""
    output = _forward(method, clips, settings)
    logits = output.logits.float()
    values = [logits.softmax(-1), output.video.float()]
    if temperature is not None:
        values.append((logits / temperature).softmax(-1))
    means = (reduce(each, "(video view) c -> video c", "mean", video=len(clips)).cpu().numpy() for each in values)
    return list(zip(*means, strict=True))


def _forward(method: Method, clips: Sequence[np.ndarray], settings: EvalSettings) -> Output:
    """Return the output for all views of some videos, a video's together."""
    spec = method.backbone.spec
    views = [eval_views(torch.from_numpy(clip).to(settings.device), spec, crops=settings.crops) for clip in clips]
    with settings.autocast():
        output: Output = method(torch.cat(views))
    return output


def _stacked(targets: np.ndarray, videos: Sequence[VideoScore]) -> ClassScores:
    scores, video, *scaled = (np.stack(part) for part in zip(*videos, strict=True))
    _check_finite(scores)
    return ClassScores(targets, scores, video.astype(np.float16), *scaled)


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise DivergedError("the model's scores are not finite (NaN); lower optim.lr, or set optim.precision=fp32")
