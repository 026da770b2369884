"""Features of videos and captions, and the retrieval metrics of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pipelines.evaluation.ranking import retrieval_metrics
from pipelines.evaluation.reading import of_all_ranks, read_views
from pipelines.training.errors import DivergedError

if TYPE_CHECKING:
    from pipelines.config.schema import DataConfig
    from pipelines.protocols.split import EvalSet, Example
    from pipelines.shards.clip_store import ClipStore
    from vlmodels.methods.base import Method


# ------------------------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class PairFeatures:
    """L2-normalised features of a test set, in list order."""

    video: np.ndarray  # float32 (N, E)
    text: np.ndarray  # float32 (M, E)
    owner: np.ndarray  # int64 (M,), the video of each caption


def embed_pairs(
    method: Method,
    store: ClipStore,
    test: EvalSet,
    data: DataConfig,
    *,
    device: torch.device,
    batch: int,
    rank: int = 0,
    world: int = 1,
    precision: str = "fp32",
) -> PairFeatures:
    """Embed the decodable videos of ``test`` and their captions; every rank returns the whole result.

    Raises:
        DivergedError: features that are no numbers.
    """
    how: dict[str, Any] = {"device": device, "batch": batch, "rank": rank, "world": world, "precision": precision}
    captions = [caption for said in test.captions for caption in said]
    owner = np.repeat(np.arange(len(test.captions)), [len(said) for said in test.captions])
    video = embed_videos(method, store, test.examples, data, **how)
    return PairFeatures(video, embed_captions(method, captions, **how), owner)


def pair_metrics(test: EvalSet, found: PairFeatures) -> dict[str, Any]:
    """Metrics of one test set with the counts that belong beside every score."""
    lost = {"lost_videos": len(test.unscored), "lost_captions": test.lost_captions}
    return {
        **retrieval_metrics(found.video, found.text, found.owner, **lost),
        "n_listed": test.n_listed,
        "n_scored": len(found.video),
        "n_quarantined": len(test.unscored),
        "n_captions": len(found.text) + test.lost_captions,
        "chance": 100 / test.n_listed,
    }


@torch.inference_mode()
def embed_videos(
    method: Method,
    store: ClipStore,
    examples: Sequence[Example],
    data: DataConfig,
    *,
    device: torch.device,
    batch: int,
    rank: int = 0,
    world: int = 1,
    precision: str = "fp32",
) -> np.ndarray:
    """L2-normalised features (N,E) of videos: the mean over views of their L2-normalised features.

    Each video is embedded by one rank; ``batch`` counts views.
    """
    from vlmodels.preprocess import eval_views

    method.eval()
    rows: list[tuple[int, np.ndarray]] = []
    for part, clips in read_views(store, examples, data, batch=batch, rank=rank, world=world):
        spec = method.backbone.spec
        frames = torch.cat([eval_views(torch.from_numpy(clip).to(device), spec, crops=data.crops) for clip in clips])
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            features = method.encode_video(frames)
        mean = nn.functional.normalize(features.float().unflatten(0, (len(part), -1)).mean(dim=1), dim=-1)
        rows += list(zip(part, mean.cpu().numpy(), strict=True))
    return _whole(rows, len(examples), world)


@torch.inference_mode()
def embed_captions(
    method: Method,
    captions: Sequence[str],
    *,
    device: torch.device,
    batch: int,
    rank: int = 0,
    world: int = 1,
    precision: str = "fp32",
) -> np.ndarray:
    """L2-normalised features (M,E) of captions; the same caption is embedded once, so that its copies tie exactly."""
    method.eval()
    distinct = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    mine = list(distinct)[rank::world]
    rows: list[tuple[int, np.ndarray]] = []
    for start in range(0, len(mine), batch):
        part = mine[start : start + batch]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            features = method.encode_captions(part)
        rows += list(zip((distinct[caption] for caption in part), features.float().cpu().numpy(), strict=True))
    return _whole(rows, len(distinct), world)[[distinct[caption] for caption in captions]]


def _whole(rows: list[tuple[int, np.ndarray]], count: int, world: int) -> np.ndarray:
    """Numbered rows of all ranks in order.

    Raises:
        DivergedError: rows that are no numbers.
    """
    found: list[np.ndarray] = of_all_ranks(rows, count, world)
    whole = np.stack(found)
    if not np.isfinite(whole).all():
        raise DivergedError("the model gives no numbers as features (NaN); lower optim.lr, or set optim.precision=fp32")
    return whole
