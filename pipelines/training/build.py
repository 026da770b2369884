"""Build the backbone and the method that a configuration names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.config.schema import TrainConfig

if TYPE_CHECKING:
    from vlmodels.methods.base import Method


Descriptions = Mapping[str, Mapping[str, Sequence[str]]]


def build_method(config: TrainConfig, *, frames: int, classes: Sequence[str], meta: bool = False) -> Method:
    """Build backbone and method as ``config`` says, for its training's classes; ``meta=True``: shapes only."""
    import torch

    from vlmodels import methods
    from vlmodels.clip import create
    from vlmodels.methods.base import config_from_plain

    cls = methods.get(config.method)
    place = torch.device("meta") if meta else contextlib.nullcontext()
    with place:
        backbone = create(config.backbone.name, weights=None if meta else config.backbone.pretrained, num_frames=frames)
        return cls(backbone, config_from_plain(cls, config.method_config), classes)
