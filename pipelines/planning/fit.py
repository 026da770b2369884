"""Whether clips, classes, descriptions and method fit together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.schema import TrainConfig
from pipelines.planning.sources import PlannedData
from pipelines.planning.start import start_file
from pipelines.protocols.split import Split, classes_of
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.views import view_positions
from pipelines.storage.cache import local_file
from pipelines.training.batches import batch_problems
from pipelines.training.build import Descriptions, build_method
from vlmodels.errors import UserError, noted
from vlmodels.paths import is_file

if TYPE_CHECKING:
    from torch import Tensor

    from vlmodels.methods.base import Method


RESERVED = {"select": "the score on held-out training clips", "hm": "the harmonic mean"}
"""Names among the metrics of a run that no test set can have, with what they are."""
_CAPTIONS = 2000  # of which a plan looks at the lengths, evenly among all
_SHOWN = 60


@dataclass(frozen=True)
class Fitted:
    """What a run's data is fitted with: the method on the meta device, its descriptions, the adapter it starts from."""

    method: Method
    descriptions: Descriptions | None
    start: Path | None

    def one_clip(self, frames: int) -> Tensor:
        """Return an empty clip (1,T,3,H,W) on the meta device."""
        import torch

        return torch.empty(1, frames, 3, *self.method.backbone.spec.image_size, device="meta")


def fit(data: PlannedData, problems: list[str]) -> Fitted | None:
    """Build the method for the data; what does not go together is added to ``problems``. None: nothing was built."""
    config, split = data.config, data.split
    for store in data.stores:
        with noted(problems):
            view_positions(store.offsets, config.data.clips)
    start = method = descriptions = None
    if config.start is not None:
        with noted(problems):
            start = start_file(config.start)
    with noted(problems):
        method = build_method(config, frames=data.stores[0].segments, classes=classes_of(split), meta=True)
    problems += batch_misfits(config, split, method)
    if method is None:
        return None
    problems += misfits(config, data.stores, split, method)
    with noted(problems):
        descriptions = find_descriptions(config, method, split)
    return Fitted(method, descriptions, start)


def batch_misfits(config: TrainConfig, split: Split, method: Method | None) -> list[str]:
    """Return what keeps the training clips from making batches; nothing if nothing trains."""
    optim, pairs = config.optim, bool(config.augment.mixup or config.augment.cutmix)
    if not optim.epochs or (method is not None and not method.trainable_parameters()):
        return []
    if not split.train:
        return [
            "nothing to train on: zero_shot trains on --data and scores other data (--test DIR); to score without "
            "training set optim.epochs=0, with --start RUN for a model that is trained already"
        ]
    workers, parts = config.scale.workers, config.data.parts
    if workers < 1 or optim.micro_batch < 0 or optim.batch_size < max(workers, parts) or 1 < parts < workers:
        return []  # ``check`` complains
    for world in range(config.scale.min_workers or workers, workers + 1):  # an elastic run may have any of these
        problems = batch_problems(
            len(split.train), optim.batch_size, optim.micro_batch, world, parts=parts, pairs=pairs
        )
        if problems:
            return problems
    return []


def misfits(config: TrainConfig, stores: Sequence[ClipStore], split: Split, method: Method) -> list[str]:
    """Return what is right by itself and wrong together: classes, pairs, and the size of stored clips."""
    problems = _name_misfits(split)
    for names in (split.train_classes, *(test.classes for test in split.tests)):
        if names:
            with noted(problems):
                method.set_classes(names)
    if split.captions:
        from pipelines.training.pairs import pair_problems

        problems += pair_problems(config, method)
    size = min(method.backbone.spec.image_size)
    problems += [
        f"the clips of {store.uri} are stored {min(store.shape[1:3])} pixels small but {config.backbone.name} sees "
        f"{size}; ingest again with --size {size}"
        for store in stores
        if min(store.shape[1:3]) < size
    ]
    return problems


def _name_misfits(split: Split) -> list[str]:
    """Return the test sets whose names a run's record has for other scores."""
    return [
        f"a test set cannot be called {test.name}, which is {RESERVED[test.name]} in a run's record: "
        "name another (NAME=DIR)"
        for test in split.tests
        if test.name in RESERVED
    ]


def find_descriptions(config: TrainConfig, method: Method, split: Split) -> Descriptions | None:
    """Return the descriptions that the method trains on; None if it needs none.

    Raises:
        UserError: it needs some, and no store is given, or the store lacks them.
    """
    kinds = method.description_kinds
    if not kinds or not split.train or not config.optim.epochs or not split.train_classes:
        return None
    if config.text.descriptions is None:
        raise UserError(
            f"{config.method} with these settings trains on {' and '.join(kinds)} descriptions; "
            "make them with pipelines/describe.py and pass --descriptions FILE (or --set method.alpha=0)"
        )
    from llm_descriptions.store import DescriptionStore

    path = local_file(config.text.descriptions)
    if not is_file(path):
        what = "is no file" if os.path.lexists(path) else "no such file"
        raise UserError(f"--descriptions {config.text.descriptions}: {what}; pipelines/describe.py makes one")
    store = DescriptionStore(path)
    text = config.text
    return store.bank(split.train_classes, kinds, n=text.n, model=text.model, prompt_id=text.prompt_id)


def view_notes(config: TrainConfig, split: Split) -> list[str]:
    """Say where the scored views differ from those of the method's paper."""
    from pipelines.protocols.paper_views import note

    assert split.scoring is not None
    return note(config.method, config.protocol.name, split.dataset, split.scoring)


def text_notes(method: Method, split: Split, descriptions: Descriptions | None) -> list[str]:
    """Say how many descriptions and captions lose their last words; class names that are too long are refused."""
    spec, fits = method.backbone.spec, method.backbone.fits
    cut = f"longer than the {spec.context_length} tokens that {spec.name} reads, and lose their last words"
    notes = []
    sentences = [s for kind in (descriptions or {}).values() for own in kind.values() for s in own]
    if long := [sentence for sentence in sentences if not fits(sentence)]:
        remedy = f"describe.py --context {spec.context_length} asks for shorter ones"
        notes.append(f"{len(long)} of {len(sentences)} descriptions are {cut}: '{_start(long[0])}'; {remedy}")
    captions = list(dict.fromkeys([*split.captions, *(c for t in split.tests for own in t.captions for c in own)]))
    looked_at = captions[:: -(-len(captions) // _CAPTIONS) or 1]
    if long := method.cut_captions(looked_at):
        notes.append(f"{len(long)} of {len(looked_at)} captions are {cut}: '{_start(long[0])}'")
    return notes


def _start(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rstrip()} ..."


def shard_notes(workers: int, store: ClipStore, split: Split) -> list[str]:
    """Say if more workers read than there are shards."""
    if workers == 1 or not split.train:  # the usual run, and a trial of a sweep, look nothing up
        return []
    shards = len({store.place(example.clip_id)[0] for example in split.train})
    if workers <= shards:
        return []
    return [f"more workers ({workers}) than shards ({shards}): several read the same one"]
