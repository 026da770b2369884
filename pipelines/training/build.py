"""Build what a configuration names: backbone and method, and the loop that trains it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.config.schema import TrainConfig

if TYPE_CHECKING:
    import torch

    from pipelines.protocols.split import Split
    from pipelines.shards.clip_store import ClipStore
    from pipelines.training.loop import Loop
    from pipelines.training.parts import Parts
    from vlmodels.methods.base import Method


Descriptions = Mapping[str, Mapping[str, Sequence[str]]]
"""Sentences of each kind about each class."""


def build_method(config: TrainConfig, *, frames: int, classes: Sequence[str], meta: bool = False) -> Method:
    """Build backbone and method.

    Args:
        config: names and settings of both.
        frames: of a clip.
        classes: of the training.
        meta: build shapes only, without weights.
    """
    import torch

    from vlmodels import methods
    from vlmodels.clip import create, weight_file
    from vlmodels.methods.base import config_from_plain

    cls = methods.get(config.method)
    file = weight_file(config.backbone.name, config.backbone.pretrained)
    place = torch.device("meta") if meta else contextlib.nullcontext()
    with place:
        backbone = create(
            config.backbone.name,
            weights=None if meta else config.backbone.pretrained,
            num_frames=frames,
            statistics=config.backbone.statistics,
            beside=None if file is None else file.parent,
        )
        return cls(backbone, config_from_plain(cls, config.method_config), classes)


def build_loop(
    config: TrainConfig,
    split: Split,
    method: Method,
    store: ClipStore,
    parts: Parts,
    *,
    group: int,
    world: int,
    device: torch.device,
    on_step: Callable[[int, int], None] | None = None,
) -> Loop:
    """Build the training loop of one rank.

    Args:
        config: batches, augmentation and optimizer.
        split: what is trained on.
        method: what trains, on ``device``.
        store: ingested data.
        parts: of the training clips.
        group: the group of parts that the rank reads. What is drawn by rank is drawn by group: after a restart another
            rank may have it.
        world: number of ranks.
        device: of the rank.
        on_step: called after each step.
    """
    from pipelines.training.augment import Augment
    from pipelines.training.batches import TrainBatches
    from pipelines.training.loop import Loop
    from pipelines.training.mixing import Mixing

    spec = method.backbone.spec
    batches = TrainBatches(
        store,
        split.train,
        Augment(config.augment, spec.image_size, spec.mean, spec.std),
        batch_size=config.optim.batch_size,
        micro_batch=config.optim.micro_batch,
        rank=group,
        world=world,
        seed=config.seed,
        device=device,
        mixing=Mixing(config.augment, config.optim.label_smoothing, len(split.train_classes)),
        parts=parts,
    )
    return Loop(
        method,
        batches,
        config.optim,
        config.seed,
        device,
        group,
        world,
        on_step=on_step,
        captions=split.captions or None,
    )
