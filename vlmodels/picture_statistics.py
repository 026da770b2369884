"""Mean and deviation of pictures' colours: those that a backbone was trained with, or others by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from open_clip.constants import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
)
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from vlmodels.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each colour, in [0, 1]

STATISTICS: Mapping[str, Statistics] = {
    "openai": (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),  # what ViFi-CLIP's code, and code built on it, gives to CLIP's weights
    "inception": (INCEPTION_MEAN, INCEPTION_STD),  # 0.5 and 0.5: SigLIP, PE-Core
}
OWN = "own"


def statistics_rule(name: str) -> tuple[bool, str]:
    """Return whether there are statistics of this name, and the message if not."""
    known = [OWN, *STATISTICS]
    return name in known, f"backbone.statistics='{name}' is none of {', '.join(known)}{nearest(name, known)}"


def set_statistics(model: nn.Module, name: str) -> None:
    """Set the statistics of a model's pictures; "own" changes nothing.

    Raises:
        UserError: there are none of this name.
    """
    known, message = statistics_rule(name)
    if not known:
        raise UserError(message)
    if name != OWN:
        _set(model, STATISTICS[name])


def set_published_statistics(model: nn.Module, name: str, source: str = "") -> None:
    """Set the statistics with which an open_clip model's published weights were trained.

    If its tags differ (ViT-L-14's do), OpenAI's are set, with a warning if ``source`` names a file, which could be of
    either.
    """
    found = [_of_tag(name, tag) for tag in list_pretrained_tags_by_model(name)]
    if not found:
        return
    if len(set(found)) == 1:
        _set(model, found[0])
    elif source:
        warnings.warn(
            f"{source}: the published weights of {name} differ in their pictures' mean and deviation; OpenAI's are "
            "taken; say backbone.statistics=inception for weights of laion2b_s32b_b82k",
            stacklevel=4,
        )


def _of_tag(name: str, tag: str) -> Statistics:
    config: Mapping[str, Any] = get_pretrained_cfg(name, tag)
    mean, std = STATISTICS["openai"]
    return tuple(config.get("mean") or mean), tuple(config.get("std") or std)


def _set(model: Any, statistics: Statistics) -> None:
    mean, std = statistics
    model.visual.preprocess_cfg = {**getattr(model.visual, "preprocess_cfg", {}), "mean": mean, "std": std}
