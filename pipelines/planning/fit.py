"""Whether clips, classes, descriptions and method fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.config.schema import TrainConfig
from pipelines.protocols.split import Split
from pipelines.shards.clip_store import ClipStore
from pipelines.storage.cache import local_file
from pipelines.training.batches import batch_problems
from pipelines.training.build import Descriptions
from vlmodels.errors import UserError, noted

if TYPE_CHECKING:
    from torch import Tensor

    from vlmodels.methods.base import Method


def view_notes(config: TrainConfig, split: Split) -> list[str]:
    """Whether the scoring looks at videos as the method's paper does."""
    from pipelines.protocols.paper_views import note

    assert split.scoring is not None
    return note(config.method, config.protocol.name, split.dataset, split.scoring)


def shard_notes(workers: int, store: ClipStore, split: Split) -> list[str]:
    """Say if more workers read than there are shards."""
    if workers == 1 or not split.train:  # the usual run, and a trial of a sweep, look nothing up
        return []
    shards = len({store.place(example.clip_id)[0] for example in split.train})
    return [f"more workers ({workers}) than shards ({shards}): several read the same one"] * (workers > shards)


def one_clip(method: Method, frames: int) -> Tensor:
    """Return an empty clip (1,T,3,H,W) on the meta device."""
    import torch

    return torch.empty(1, frames, 3, *method.backbone.spec.image_size, device="meta")


def batch_misfits(config: TrainConfig, split: Split, method: Method | None) -> list[str]:
    """What keeps the training clips from making batches; nothing if nothing trains."""
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
        return []  # told by ``check``
    for world in range(config.scale.min_workers or workers, workers + 1):  # an elastic run may have any of these
        if told := batch_problems(
            len(split.train), optim.batch_size, optim.micro_batch, world, parts=parts, pairs=pairs
        ):
            return told
    return []


def misfits(config: TrainConfig, stores: Sequence[ClipStore], split: Split, method: Method) -> list[str]:
    """What is right by itself and wrong together."""
    problems: list[str] = []
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


def find_descriptions(config: TrainConfig, method: Method, split: Split) -> Descriptions | None:
    """Return the descriptions that the method trains on; None if it needs none."""
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
    if not path.is_file():
        raise UserError(f"--descriptions {config.text.descriptions}: no such file; pipelines/describe.py makes one")
    store = DescriptionStore(path)
    text = config.text
    return store.bank(split.train_classes, kinds, n=text.n, model=text.model, prompt_id=text.prompt_id)
