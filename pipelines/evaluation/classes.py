"""Score classes: class probabilities of every video, in one or more orders of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipelines.evaluation.metrics import Scores
from pipelines.evaluation.reading import of_all_ranks, read_views, reorder
from pipelines.training.errors import DivergedError

if TYPE_CHECKING:
    from pipelines.config.schema import DataConfig
    from pipelines.protocols.split import Example
    from pipelines.shards.clip_store import ClipStore
    from vlmodels.methods.base import Method


@torch.inference_mode()
def score_orders(
    method: Method,
    store: ClipStore,
    examples: Sequence[Example],
    data: DataConfig,
    orders: Sequence[str],
    *,
    device: torch.device,
    batch: int,
    rank: int = 0,
    world: int = 1,
    precision: str = "fp32",
) -> dict[str, Scores]:
    """Score ``examples`` among the classes that ``method`` holds, for each order of frames; a clip is read once.

    Logits of each view become a softmax, and views are averaged (ViFi-CLIP's rule, used by all four papers).
    Each example is scored by one rank, exactly once, however many ranks there are; every rank returns the whole result.

    Raises:
        DivergedError: if a score is not finite.
    """
    from vlmodels.preprocess import eval_views

    method.eval()
    rows: list[tuple[int, dict[str, tuple[np.ndarray, np.ndarray]]]] = []
    for part, clips in read_views(store, examples, data, batch=batch, rank=rank, world=world):
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for order in orders:
            shown = [reorder(clip, order, examples[i].clip_id) for i, clip in zip(part, clips, strict=True)]
            frames = [
                eval_views(torch.from_numpy(clip).to(device), method.backbone.spec, crops=data.crops) for clip in shown
            ]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                output = method(torch.cat(frames))
            probabilities = output.logits.float().softmax(-1)
            over_views = (v.view(len(part), -1, v.shape[-1]).mean(1) for v in (probabilities, output.video.float()))
            found[order] = (next(over_views).cpu().numpy(), next(over_views).cpu().numpy())
        rows += [(i, {o: (p[n], v[n]) for o, (p, v) in found.items()}) for n, i in enumerate(part)]
    whole = of_all_ranks(rows, len(examples), world)
    targets = np.array([e.target for e in examples], dtype=np.int64)
    results = {}
    for order in orders:
        scores = np.stack([found[order][0] for found in whole])
        if not np.isfinite(scores).all():
            raise DivergedError(
                "the model gives no numbers as scores (NaN); lower optim.lr, or set optim.precision=fp32"
            )
        video = np.stack([found[order][1] for found in whole]).astype(np.float16)
        results[order] = Scores(targets, scores, video)
    return results
