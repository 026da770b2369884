"""Score retrieval: features of videos and captions, and the metrics that come from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import reduce
from torch import nn

from pipelines.evaluation.ranking import retrieval_metrics
from pipelines.evaluation.reading import EvalSettings, gather_rows, read_views
from pipelines.training.errors import DivergedError
from vlmodels.preprocess import eval_views

if TYPE_CHECKING:
    from pipelines.protocols.split import EvalSet, Example
    from pipelines.shards.clip_store import ClipStore
    from vlmodels.methods.base import Method


@dataclass(frozen=True)
class PairFeatures:
    """L2-normalised features of a test set, in list order."""

    video: np.ndarray  # float32 (N, E)
    text: np.ndarray  # float32 (M, E)
    owner: np.ndarray  # int64 (M,), the video of each caption


def embed_pairs(method: Method, store: ClipStore, test: EvalSet, settings: EvalSettings) -> PairFeatures:
    """Embed the decodable videos of ``test`` and their captions; every rank returns the whole result.

    Raises:
        DivergedError: a feature is not finite.
    """
    captions = [caption for own in test.captions for caption in own]
    owner = np.repeat(np.arange(len(test.captions)), [len(own) for own in test.captions])
    video = embed_videos(method, store, test.examples, settings)
    return PairFeatures(video, embed_captions(method, captions, settings), owner)


def rank_pairs(test: EvalSet, found: PairFeatures) -> dict[str, dict[str, float]]:
    """Return ``retrieval_metrics`` of a test set; videos that cannot be decoded count as wrong."""
    return retrieval_metrics(
        found.video, found.text, found.owner, lost_videos=len(test.unscored), lost_captions=test.lost_captions
    )


def pair_counts(test: EvalSet, found: PairFeatures) -> dict[str, float]:
    """Return the counts of a test set that its ranks need next to them."""
    return {
        "n_listed": test.n_listed,
        "n_scored": len(found.video),
        "n_quarantined": len(test.unscored),
        "n_captions": len(found.text) + test.lost_captions,
        "chance": 100 / test.n_listed,
    }


@torch.inference_mode()
def embed_videos(method: Method, store: ClipStore, examples: Sequence[Example], settings: EvalSettings) -> np.ndarray:
    """Return L2-normalised features (N,E) of videos: the mean over views of their L2-normalised features.

    Each video is embedded by one rank; every rank returns all.

    Raises:
        DivergedError: a feature is not finite.
    """
    method.eval()
    spec = method.backbone.spec
    rows: list[tuple[int, np.ndarray]] = []
    for numbers, clips in read_views(store, examples, settings):
        frames = [eval_views(torch.from_numpy(clip).to(settings.device), spec, crops=settings.crops) for clip in clips]
        with settings.autocast():
            features = method.encode_video(torch.cat(frames))
        mean = reduce(features.float(), "(video view) e -> video e", "mean", video=len(numbers))
        rows += list(zip(numbers, nn.functional.normalize(mean, dim=-1).cpu().numpy(), strict=True))
    return _stacked(rows, len(examples), settings.world)


@torch.inference_mode()
def embed_captions(method: Method, captions: Sequence[str], settings: EvalSettings) -> np.ndarray:
    """Return L2-normalised features (M,E) of captions.

    The same caption is embedded once, so that its copies tie exactly.

    Raises:
        DivergedError: a feature is not finite.
    """
    method.eval()
    row_of = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    share = list(row_of)[settings.rank :: settings.world]
    rows: list[tuple[int, np.ndarray]] = []
    for start in range(0, len(share), settings.batch):
        part = share[start : start + settings.batch]
        with settings.autocast():
            features = method.encode_captions(part)
        rows += list(zip((row_of[caption] for caption in part), features.float().cpu().numpy(), strict=True))
    return _stacked(rows, len(row_of), settings.world)[[row_of[caption] for caption in captions]]


def _stacked(rows: list[tuple[int, np.ndarray]], count: int, world: int) -> np.ndarray:
    """Return the numbered rows of all ranks in order, as one array."""
    whole: list[np.ndarray] = gather_rows(rows, count, world)
    features = np.stack(whole)
    if not np.isfinite(features).all():
        raise DivergedError("the model's features are not finite (NaN); lower optim.lr, or set optim.precision=fp32")
    return features
