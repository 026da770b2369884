"""A run before it starts: everything that can be checked or counted without training, in one place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.plain import digest_of
from pipelines.config.rules import check
from pipelines.config.schema import TrainConfig
from pipelines.planning.fit import batch_misfits, find_descriptions, misfits, one_clip, shard_notes, view_notes
from pipelines.planning.identity import code_version, weights_digest
from pipelines.planning.sources import (
    open_sources,
    portable,
    scoring_of,
    with_absolute_paths,
)
from pipelines.planning.start import start_file, start_notes
from pipelines.protocols.make import make_split
from pipelines.protocols.split import NOTHING, Split, classes_of
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.views import view_positions
from pipelines.training.build import Descriptions, build_method
from vlmodels.errors import UserError, noted

_DRAWN = re.compile(r"fs_base_s\d+_train|train\d+_few_shot_")  # lists that each seed has its own of


@dataclass(frozen=True)
class Plan:
    """A checked run: what will be trained, on what, and what it weighs."""

    config: TrainConfig
    split: Split
    descriptions: Descriptions | None
    data_digest: str
    facts: Mapping[str, Any]
    start: Path | None = None  # adapter file that training starts from

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        from vlmodels import methods

        config, frames, told = self.config, self.facts["frames"], list(self.split.notes)
        if config.preset is not None and self.facts["trainable"] and not self.facts["view_notes"]:
            published = methods.get(config.method).presets[config.preset].recipe.frames
            if published != frames:
                told.append(
                    f"the preset takes {published} frames, these clips have {frames}: ingest with --frames {published}"
                )
        if config.backbone.name.startswith("toy") and not self.split.dataset.startswith("toy"):
            told.append(
                "the toy backbone knows the words and things of the toy world alone: on other data its scores show "
                "that the line works, and nothing of the method"
            )
        return (*told, *self.facts["shard_notes"], *self.facts["start_notes"], *self.facts["view_notes"])

    @property
    def data(self) -> tuple[str, ...]:
        """Folders or URIs of all ingested data that the run reads."""
        return tuple(sorted({self.config.data.dir, *(test.data for test in self.split.tests)} - {""}))

    @property
    def name(self) -> str:
        """Name of the run: equal if it would compute the same, but for what ``ScaleConfig`` says of workers."""
        return self._name([self.config.digest(), self.split.digest])

    @property
    def group(self) -> str:
        """Name of the runs that differ from this one by their seed alone, and so by their training subset."""
        fixed = {name: digest for name, digest in self.split.lists.items() if not _DRAWN.match(name)}
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
        return f"{self.split.protocol}-{self.config.method}-{digest_of(parts)[:10]}"


def plan_run(config: TrainConfig) -> Plan:
    """Check ``config`` against the data, the backbone's shape and the descriptions.

    Raises:
        UserError: naming everything that is wrong, at once where several things can be seen together.
    """
    from vlmodels.clip import check_weights
    from vlmodels.describe import gmacs

    problems = check(config)
    stores: list[ClipStore] = []
    split = method = descriptions = None
    start = None
    with noted(problems):
        check_weights(config.backbone.name, config.backbone.pretrained)
    if config.data.dir or config.protocol.tests:
        with noted(problems):
            stores, sources = open_sources(config)
            config = with_absolute_paths(config, stores[0])
            data, *tests = sources if config.data.dir else [NOTHING, *sources]
            if config.seed >= 0:  # ``check`` has told otherwise
                split = make_split(
                    config.protocol, data, config.seed, tests=tests, scoring=scoring_of(config, stores[0])
                )
                split = portable(split, stores)
    if stores and split is not None:
        for store in stores:
            with noted(problems):
                view_positions(store.offsets, config.data.clips)
        if config.start is not None:
            with noted(problems):
                start = start_file(config.start)
        with noted(problems):
            method = build_method(config, frames=stores[0].segments, classes=classes_of(split), meta=True)
        problems += batch_misfits(config, split, method)
        if method is not None:
            problems += misfits(config, stores, split, method)
            with noted(problems):
                descriptions = find_descriptions(config, method, split)
    if problems or not stores or split is None or method is None:
        raise UserError("; ".join(dict.fromkeys(problems)))
    trainable = sum(p.numel() for p in method.trainable_parameters())
    facts = {
        "trainable": trainable,
        "total": sum(p.numel() for p in method.parameters()),
        "frames": stores[0].segments,
        "train_clips": len(split.train),
        "select_clips": len(split.select),
        "test_clips": {test.name: test.n_listed for test in split.tests},
        "classes": {"train": len(split.train_classes)} | {t.name: len(t.classes) for t in split.tests},
        "steps": len(split.train) // config.optim.batch_size * config.optim.epochs if trainable else 0,
        "adapter_bytes": 4 * trainable,
        "weights_digest": weights_digest(config.backbone.pretrained),
        "view_notes": view_notes(config, split),
        "shard_notes": shard_notes(config.scale.workers, stores[0], split) if trainable else [],
        "start_notes": start_notes(start, stores),
        "gmacs_video": round(gmacs(method.eval().encode_video, one_clip(method, stores[0].segments)), 3),
    }
    digest = stores[0].digest if len(stores) == 1 else digest_of([store.digest for store in stores])
    return Plan(config, split, descriptions, digest, facts, start)
