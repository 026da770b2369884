"""Score a model on what a run holds out and on its test sets."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipelines.evaluation.classes import score_orders, score_views
from pipelines.evaluation.decision import Answers, Decided, decide
from pipelines.evaluation.metrics import ClassScores, Metrics, accuracy, harmonic_mean, set_metrics
from pipelines.evaluation.pairs import PairFeatures, embed_pairs, pair_counts, rank_pairs
from pipelines.evaluation.reading import NORMAL, ORDERS, EvalSettings
from pipelines.protocols.split import EvalSet, Example
from vlmodels.text_cache import encode_together

if TYPE_CHECKING:
    from pipelines.config.schema import TrainConfig
    from pipelines.protocols.split import Split
    from pipelines.shards.clip_store import ClipStore
    from pipelines.training.build import Descriptions
    from vlmodels.methods.base import Method

_DECIDED_ON = 5000  # held-out clips at most, as Guo et al. took for CIFAR
_UNKNOWN = -1  # stands for a class that was not trained


@dataclass(frozen=True)
class SetResult:
    """What the scoring of a test set gives.

    Attributes:
        top1: in percent; R@1 from text to video in retrieval.
        metrics: all numbers.
        predictions: what is kept of the videos, arrays by their names in ``predictions.npz``.
        scores: of the videos in list order; None for retrieval.
    """

    top1: float
    metrics: Metrics
    predictions: Mapping[str, np.ndarray]
    scores: ClassScores | None = None


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
        self._miss_rate = config.protocol.miss_rate
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

    def decide(self) -> Decided | None:
        """Choose the temperature and the threshold of "none of these" on what is held out.

        None if nothing is, and for retrieval, which has no classes.
        """
        split = self._split
        if not split.select or split.captions:
            return None
        novel = split.select_novel.examples if split.select_novel is not None else ()
        known = _drawn(split.select, split.seed)
        clips = [*known, *(Example(one.clip_id, _UNKNOWN) for one in _drawn(novel, split.seed))]
        with self.classes(split.train_classes):
            logits = score_views(self._method, self._stores[""], clips, self._settings)
        return decide(logits, np.array([one.target for one in clips]), self._miss_rate)

    def test(self, test: EvalSet, *, probe: bool = False, temperature: float | None = None) -> SetResult:
        """Score a test set; with ``probe`` also its videos with frames in other orders.

        With ``temperature`` the result's ``scores`` have those at it too; nothing else changes.
        """
        if test.captions:
            return self._test_pairs(test)
        orders = (NORMAL, *ORDERS) if probe else (NORMAL,)
        with self.classes(test.classes):
            results = self._score_orders(test.examples, test.data, orders, temperature)
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
        return SetResult(accuracy(normal, len(test.unscored))["top1"], metrics, predictions, normal)

    def answers(self, test: EvalSet, result: SetResult, temperature: float) -> Answers | None:
        """Return what the model says about a test set's videos among its trained classes.

        Videos that were scored among other classes (``novel``), or not at all (of held-out classes), are scored now.
        None for a test set of other data: its classes may be trained ones by another name.

        Args:
            test: the test set.
            result: of ``test`` at this temperature.
            temperature: that was chosen.
        """
        if test.data or result.scores is None:
            return None
        classes = self._split.train_classes
        parts = [Answers.of(result.scores, result.scores.scaled)] if test.classes == classes else []
        numbers = {name: number for number, name in enumerate(classes)}
        others = [one for one in self._split.unseen if one.name == test.name]
        for rest in others if parts else [test, *others]:
            clips = [Example(one.clip_id, numbers.get(rest.classes[one.target], _UNKNOWN)) for one in rest.examples]
            with self.classes(classes):
                found = self._score_orders(clips, "", (NORMAL,), temperature)[NORMAL]
            parts.append(Answers.of(found, found.scaled))
        return functools.reduce(Answers.and_of, parts)

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

    def _score_orders(
        self, examples: Sequence[Example], data: str, orders: Sequence[str], temperature: float | None = None
    ) -> dict[str, ClassScores]:
        store = self._stores[data]
        return score_orders(self._method, store, examples, orders, self._settings, temperature=temperature)

    def _embed(self, test: EvalSet) -> PairFeatures:
        return embed_pairs(self._method, self._stores[test.data], test, self._settings)

    @torch.inference_mode()
    def _class_features(self) -> np.ndarray:
        """Return float16 features (C,E) of the classes that are set, for the pictures of a report."""
        return self._method.encode_classes().float().cpu().numpy().astype(np.float16)


def _drawn(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return at most ``_DECIDED_ON`` of the clips, drawn by the split's seed: their logits are kept of every view."""
    if len(examples) <= _DECIDED_ON:
        return list(examples)
    chosen = np.random.default_rng([seed, 4]).choice(len(examples), _DECIDED_ON, replace=False)
    return [examples[number] for number in np.sort(chosen)]


def _clip_ids(test: EvalSet) -> np.ndarray:
    return np.array([example.clip_id for example in test.examples])
