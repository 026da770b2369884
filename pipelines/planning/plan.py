"""A run before it starts: all that can be checked or counted without training."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.config.check import check
from pipelines.config.plain import digest_of
from pipelines.config.schema import TrainConfig
from pipelines.planning.facts import PlanFacts
from pipelines.planning.fit import Fitted, fit, shard_notes, text_notes, view_notes
from pipelines.planning.identity import code_version, tokenizer_digest, weights_digest
from pipelines.planning.sources import PlannedData, open_data
from pipelines.planning.start import start_notes
from pipelines.protocols.split import Split
from pipelines.training.build import Descriptions
from vlmodels.errors import UserError, noted

_LISTS_OF_A_SEED = re.compile(r"fs_base_s\d+_train|train\d+_few_shot_")


@dataclass(frozen=True)
class Plan:
    """A checked run: what will be trained, on what, and what it weighs."""

    config: TrainConfig
    split: Split
    descriptions: Descriptions | None
    data_digest: str
    facts: PlanFacts
    start: Path | None = None  # adapter file that training starts from

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        facts = self.facts
        return (*self.split.notes, *self._frame_notes(), *self._toy_notes(),
                *facts.text_notes, *facts.shard_notes, *facts.start_notes, *facts.view_notes)  # fmt: skip

    def _frame_notes(self) -> list[str]:
        """Say if the preset was published for another number of frames; view notes say so already."""
        from vlmodels import methods

        config, frames = self.config, self.facts.frames
        if config.preset is None or not self.facts.trainable or self.facts.view_notes:
            return []
        published = methods.get(config.method).presets[config.preset].recipe.frames
        if published == frames:
            return []
        return [f"the preset takes {published} frames, these clips have {frames}: ingest with --frames {published}"]

    def _toy_notes(self) -> list[str]:
        if not self.config.backbone.name.startswith("toy") or self.split.dataset.startswith("toy"):
            return []
        return [
            "the toy backbone knows only the words and things of the toy world: on other data its scores show that "
            "the pipeline works, and nothing about the method"
        ]

    @property
    def data(self) -> tuple[str, ...]:
        """Folders or URIs of all ingested data that the run reads."""
        return tuple(sorted({self.config.data.dir, *(test.data for test in self.split.tests)} - {""}))

    @property
    def name(self) -> str:
        """Name of the run: equal if it would compute the same, except for effects of the number of workers."""
        return self._name([self.config.digest(), self.split.digest])

    @property
    def group(self) -> str:
        """Name that runs share which differ only by their seed, and so by their training subset."""
        fixed = {name: digest for name, digest in self.split.lists.items() if not _LISTS_OF_A_SEED.match(name)}
        tests = [(t.name, t.classes, t.content, t.captions) for t in self.split.tests]
        return self._name([replace(self.config, seed=0).digest(), self.split.dataset, fixed, tests])

    def _name(self, own: Sequence[object]) -> str:
        parts = [
            *own,
            self.data_digest,
            digest_of(self.descriptions),
            code_version(),
            weights_digest(self.config.backbone.pretrained),
            hashlib.sha256(self.start.read_bytes()).hexdigest() if self.start else "",
        ]
        backbone = self.config.backbone
        if tokenizer := tokenizer_digest(backbone.name, backbone.pretrained):
            parts.append(tokenizer)
        return f"{self.split.protocol}-{self.config.method}-{digest_of(parts)[:10]}"


def plan_run(config: TrainConfig) -> Plan:
    """Check ``config`` against the data, the backbone's shape and the descriptions.

    Raises:
        UserError: naming everything that is wrong, at once where several things can be seen together.
    """
    from vlmodels.clip import check_weight_file, check_weights

    problems = check(config)
    with noted(problems):
        check_weights(config.backbone.name, config.backbone.pretrained)
        check_weight_file(config.backbone.name, config.backbone.pretrained)
    data = open_data(config, problems)
    fitted = fit(data, problems) if data is not None else None
    if problems or data is None or fitted is None:
        raise UserError("; ".join(dict.fromkeys(problems)))
    return Plan(
        config=data.config,
        split=data.split,
        descriptions=fitted.descriptions,
        data_digest=data.digest,
        facts=count(data, fitted),
        start=fitted.start,
    )


def count(data: PlannedData, fitted: Fitted) -> PlanFacts:
    """Count what the run trains, reads and scores."""
    from vlmodels.describe import gmacs

    config, split, store, method = data.config, data.split, data.stores[0], fitted.method
    trainable = sum(p.numel() for p in method.trainable_parameters())
    return PlanFacts(
        trainable=trainable,
        total=sum(p.numel() for p in method.parameters()),
        frames=store.segments,
        train_clips=len(split.train),
        select_clips=len(split.select),
        test_clips={test.name: test.n_listed for test in split.tests},
        classes={"train": len(split.train_classes)} | {test.name: len(test.classes) for test in split.tests},
        steps=len(split.train) // config.optim.batch_size * config.optim.epochs if trainable else 0,
        adapter_bytes=4 * trainable,
        weights_digest=weights_digest(config.backbone.pretrained),
        view_notes=tuple(view_notes(config, split)),
        shard_notes=tuple(shard_notes(config.scale.workers, store, split)) if trainable else (),
        start_notes=tuple(start_notes(fitted.start, data.stores)),
        text_notes=tuple(text_notes(method, split, fitted.descriptions)),
        gmacs_video=round(gmacs(method.eval().encode_video, fitted.one_clip(store.segments)), 3),
    )
