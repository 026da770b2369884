"""Score classes: class probabilities of every video, in one or more orders of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import reduce

from pipelines.evaluation.metrics import ClassScores
from pipelines.evaluation.reading import EvalSettings, gather_rows, read_views, reorder
from pipelines.training.errors import DivergedError
from vlmodels.preprocess import eval_views

if TYPE_CHECKING:
    from pipelines.protocols.split import Example
    from pipelines.shards.clip_store import ClipStore
    from vlmodels.methods.base import Method

VideoScore = tuple[np.ndarray, np.ndarray]
"""Class probabilities (C,) and features (E,) of one video."""


@torch.inference_mode()
def score_orders(
    method: Method, store: ClipStore, examples: Sequence[Example], orders: Sequence[str], settings: EvalSettings
) -> dict[str, ClassScores]:
    """Score ``examples`` among the classes that ``method`` holds, for each order of frames; a clip is read once.

    Logits of each view become a softmax, and views are averaged (ViFi-CLIP's rule, used by all four papers).
    Each example is scored by one rank, exactly once, however many ranks there are; every rank returns the whole result.

    Raises:
        DivergedError: a score is not finite.
    """
    method.eval()
    rows: list[tuple[int, dict[str, VideoScore]]] = []
    for numbers, clips in read_views(store, examples, settings):
        found: dict[str, list[VideoScore]] = {}
        for order in orders:
            shown = [reorder(clip, order, examples[i].clip_id) for i, clip in zip(numbers, clips, strict=True)]
            found[order] = _score_clips(method, shown, settings)
        rows += [(i, {order: found[order][row] for order in orders}) for row, i in enumerate(numbers)]
    videos = gather_rows(rows, len(examples), settings.world)
    targets = np.array([example.target for example in examples], dtype=np.int64)
    return {order: _stacked(targets, [video[order] for video in videos]) for order in orders}


def _score_clips(method: Method, clips: Sequence[np.ndarray], settings: EvalSettings) -> list[VideoScore]:
    """Score some videos, frames (clips,T,H,W,3) each, in one forward pass."""
    spec = method.backbone.spec
    views = [eval_views(torch.from_numpy(clip).to(settings.device), spec, crops=settings.crops) for clip in clips]
    with settings.autocast():
        output = method(torch.cat(views))
    probabilities, features = (
        reduce(values, "(video view) c -> video c", "mean", video=len(clips)).cpu().numpy()
        for values in (output.logits.float().softmax(-1), output.video.float())
    )
    return list(zip(probabilities, features, strict=True))


def _stacked(targets: np.ndarray, videos: Sequence[VideoScore]) -> ClassScores:
    scores = np.stack([probabilities for probabilities, _ in videos])
    if not np.isfinite(scores).all():
        raise DivergedError("the model's scores are not finite (NaN); lower optim.lr, or set optim.precision=fp32")
    return ClassScores(targets, scores, np.stack([features for _, features in videos]).astype(np.float16))
