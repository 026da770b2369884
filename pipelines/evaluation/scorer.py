"""Score a model on what a run holds out and on its test sets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipelines.evaluation.classes import score_orders
from pipelines.evaluation.metrics import ClassScores, Metrics, accuracy, harmonic_mean, set_metrics
from pipelines.evaluation.pairs import PairFeatures, embed_pairs, pair_counts, rank_pairs
from pipelines.evaluation.reading import NORMAL, ORDERS, EvalSettings
from pipelines.protocols.split import EvalSet
from vlmodels.text_cache import encode_together

if TYPE_CHECKING:
    from pipelines.config.schema import TrainConfig
    from pipelines.protocols.split import Example, Split
    from pipelines.shards.clip_store import ClipStore
    from pipelines.training.build import Descriptions
    from vlmodels.methods.base import Method


@dataclass(frozen=True)
class SetResult:
    """What the scoring of a test set gives.

    Attributes:
        top1: in percent; R@1 from text to video in retrieval.
        metrics: all numbers.
        predictions: what is kept of the videos, arrays by their names in ``predictions.npz``.
    """

    top1: float
    metrics: Metrics
    predictions: Mapping[str, np.ndarray]


class Scorer:
    """Scores a method. All ranks must make the same calls: they share the videos and the texts.

    Args:
        method: what is scored.
        stores: ingested data by ``EvalSet.data``; "" is the data that is trained on.
        split: what is held out, and the test sets.
        config: views, batch and precision of the scoring.
        device: where ``method`` is.
        rank: of this process.
        world: number of processes that score together.
    """

    def __init__(
        self,
        method: Method,
        stores: Mapping[str, ClipStore],
        split: Split,
        config: TrainConfig,
        *,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._method = method
        self._stores = stores
        self._split = split
        self._select_on_test = config.selection == "test-best"
        self._settings = EvalSettings(
            device=device,
            batch=config.scale.eval_batch,
            clips=config.data.clips,
            crops=config.data.crops,
            rank=rank,
            world=world,
            precision=config.optim.precision,
        )

    @contextlib.contextmanager
    def classes(self, names: Sequence[str], descriptions: Descriptions | None = None) -> Iterator[None]:
        """Set the classes for a block; those that were set before it are put back after it.

        If none were set before, these stay. Without ``names`` (retrieval has no classes) nothing is set.
        """
        if not names:
            yield
            return
        before, described = self._method.classes, self._method.descriptions
        self._set_classes(names, descriptions)
        yield
        # Not after an error: ranks agree on texts, and one that failed would wait here for the others for good.
        if before:
            self._set_classes(before, described)

    def _set_classes(self, names: Sequence[str], descriptions: Descriptions | None) -> None:
        """Set the classes, and have the ranks compute the features that a frozen text tower gives for them."""
        self._method.set_classes(names, descriptions)
        if self._method.backbone.text_is_frozen():
            with encode_together(), self._settings.autocast():
                self._method.encode_classes()

    def selection(self) -> dict[str, float]:
        """Return what an epoch is chosen by.

        With ``selection=test-best``, as in the papers, top-1 of the first test set; else the numbers of ``held_out``.
        """
        return {"top1": self.test(self._split.tests[0]).top1} if self._select_on_test else self.held_out()

    def held_out(self) -> dict[str, float]:
        """Return top-1 and top-5 of the held-out training videos; R@1 and R@5 of their captions in retrieval.

        Where whole classes are held out too, ``novel`` is their top-1 and ``hm`` the harmonic mean of both.
        """
        split = self._split
        if split.captions:
            captions = tuple((split.captions[example.target],) for example in split.select)
            held_out = EvalSet("select", (), split.select, captions=captions)
            recall = rank_pairs(held_out, self._embed(held_out))["t2v"]
            return {"top1": recall["R@1"], "top5": recall["R@5"]}
        with self.classes(split.train_classes):
            found = accuracy(self._score(split.select))
        if split.select_novel is not None:
            with self.classes(split.select_novel.classes):
                found["novel"] = accuracy(self._score(split.select_novel.examples))["top1"]
            found["hm"] = harmonic_mean(found["top1"], found["novel"])
        return found

    def test(self, test: EvalSet, *, probe: bool = False) -> SetResult:
        """Score a test set; with ``probe`` also its videos with frames in other orders."""
        if test.captions:
            return self._test_pairs(test)
        orders = (NORMAL, *ORDERS) if probe else (NORMAL,)
        with self.classes(test.classes):
            results = self._score_orders(test.examples, test.data, orders)
            text = self._class_features()
        normal = results[NORMAL]
        metrics = set_metrics(test, normal)
        if probe:
            metrics["probe"] = {order: accuracy(results[order], len(test.unscored)) for order in ORDERS}
        predictions = {
            "clip_id": _clip_ids(test),
            "target": normal.targets,
            "score": normal.scores,
            "video": normal.video,
            "text": text,
        }
        return SetResult(accuracy(normal, len(test.unscored))["top1"], metrics, predictions)

    def _test_pairs(self, test: EvalSet) -> SetResult:
        found = self._embed(test)
        predictions = {
            "clip_id": _clip_ids(test),
            "video": found.video.astype(np.float16),
            "text": found.text.astype(np.float16),
            "owner": found.owner,
        }
        ranked = rank_pairs(test, found)
        return SetResult(ranked["t2v"]["R@1"], {**ranked, **pair_counts(test, found)}, predictions)

    def _score(self, examples: Sequence[Example]) -> ClassScores:
        return self._score_orders(examples, "", (NORMAL,))[NORMAL]

    def _score_orders(self, examples: Sequence[Example], data: str, orders: Sequence[str]) -> dict[str, ClassScores]:
        return score_orders(self._method, self._stores[data], examples, orders, self._settings)

    def _embed(self, test: EvalSet) -> PairFeatures:
        return embed_pairs(self._method, self._stores[test.data], test, self._settings)

    @torch.inference_mode()
    def _class_features(self) -> np.ndarray:
        """Return float16 features (C,E) of the classes that are set, for the pictures of a report."""
        return self._method.encode_classes().float().cpu().numpy().astype(np.float16)


def _clip_ids(test: EvalSet) -> np.ndarray:
    return np.array([example.clip_id for example in test.examples])
