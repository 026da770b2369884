"""Scoring: every listed video once, views averaged, and the metrics that the protocols report."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from pipelines.data.batches import prefetched, views
from pipelines.data.parts import in_shard_order
from pipelines.errors import DivergedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.config import DataConfig
    from pipelines.data.clipstore import ClipStore
    from pipelines.splits import EvalSet, Example
    from vlmodels.methods.base import Method


Row = TypeVar("Row")

NORMAL = "normal"
ORDERS = ("shuffled", "reversed", "single")
"""What the temporal probe shows instead of a video: its frames in another order, or its middle frame alone."""


@dataclass(frozen=True)
class Scores:
    """Class scores of the decodable videos of a test set, in list order."""

    targets: np.ndarray  # int64 (N,)
    scores: np.ndarray  # float32 (N, C), mean over views of the softmax
    video: np.ndarray | None = None  # float16 (N, E), mean over views of the L2-normalised features


def reorder(clips: np.ndarray, order: str, clip_id: str) -> np.ndarray:
    """Frames (views,T,H,W,3) as the temporal probe shows them; the shuffle is the clip's own, the same in all views."""
    frames = clips.shape[1]
    if order == "reversed":
        return clips[:, ::-1].copy()
    if order == "single":
        return np.repeat(clips[:, frames // 2, None], frames, axis=1)
    if order == "shuffled":
        return clips[:, np.random.default_rng(zlib.crc32(clip_id.encode())).permutation(frames)]
    return clips


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


def read_views(
    store: ClipStore, examples: Sequence[Example], data: DataConfig, *, batch: int, rank: int, world: int
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """This rank's share of ``examples``, ``batch`` views at a time: numbers, and frames (clips,T,H,W,3) of each.

    A share is a run of clips as they lie in the shards, so that few shards are read by two ranks.
    """
    order = in_shard_order(store, examples)
    mine = order[len(order) * rank // world : len(order) * (rank + 1) // world]
    at_once = max(1, batch // (data.clips * data.crops))

    def read() -> Iterator[tuple[list[int], list[np.ndarray]]]:
        store.fetch(store.place(examples[i].clip_id)[0] for i in mine)
        for start in range(0, len(mine), at_once):
            part = mine[start : start + at_once]
            yield part, [views(store, examples[i].clip_id, data.clips) for i in part]

    return prefetched(read())


def of_all_ranks(rows: list[tuple[int, Row]], count: int, world: int) -> list[Row]:
    """Numbered rows of all ranks, in order; every rank has them all."""
    parts: list[Any] = [rows]
    if world > 1:
        parts = [None] * world
        dist.all_gather_object(parts, rows)
    found: dict[int, Row] = dict(row for part in parts for row in part)
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} videos were scored")
    return [found[i] for i in range(count)]


def accuracy(result: Scores, unscored: int = 0) -> dict[str, float]:
    """Top-1 and top-5 in percent (top-C where C < 5); each of ``unscored`` videos counts as wrong.

    Equal scores are broken against the target, so a constant classifier earns nothing by ties.

    Raises:
        DivergedError: if a score is not finite: every comparison with NaN would pass for a win.
    """
    if not np.isfinite(result.scores).all():
        raise DivergedError("scores that are no numbers (NaN) have no accuracy")
    own = result.scores[np.arange(len(result.targets)), result.targets][:, None]
    rank = (result.scores >= own).sum(1) - 1
    listed = len(result.targets) + unscored
    k = min(5, result.scores.shape[1])
    return {"top1": 100 * float((rank < 1).sum()) / listed, "top5": 100 * float((rank < k).sum()) / listed}


def harmonic_mean(base: float, novel: float) -> float:
    """HM = 2BN / (B + N); 0 when both are."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


def set_metrics(test: EvalSet, result: Scores) -> dict[str, Any]:
    """Metrics of one test set with the counts that belong beside every score."""
    return {
        **accuracy(result, len(test.unscored)),
        "n_listed": test.n_listed,
        "n_scored": len(result.targets),
        "n_quarantined": len(test.unscored),
        "chance": 100 / len(test.classes),
    }
