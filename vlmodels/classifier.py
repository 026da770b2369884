"""Classes as text: prompts made from names, features of descriptions, and logits as scaled cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from vlmodels.backbone import Backbone

Descriptions = Mapping[str, Mapping[str, Sequence[str]]]  # kind -> class name -> sentences

_CHUNK = 256  # texts encoded at once without a graph


def prompt(name: str, template: str) -> str:
    """The sentence that stands for a class; underscores in names become spaces."""
    return template.replace("{}", name.replace("_", " "))


def check_names(names: Sequence[str]) -> None:
    """Raise UserError unless ``names`` are at least two, distinct and not blank."""
    if len(names) < 2:
        raise UserError(f"a classifier needs at least 2 classes, not {len(names)}: {list(names)}")
    blank = [index for index, name in enumerate(names) if not name.strip()]
    if blank:
        raise UserError(f"class names must not be blank (positions {blank})")
    double = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if double:
        raise UserError(f"class names must be distinct; more than once: {', '.join(double)}")


def description_features(
    backbone: Backbone, sentences: Mapping[str, Sequence[str]], names: Sequence[str], *, again: bool = True
) -> Tensor:
    """One direction (C,E) per class: the mean of the L2-normalised frozen features of its sentences.

    Every sentence weighs the same whatever its feature's length, and classes may have unequal numbers.

    Args:
        backbone: whose text tower, without hooks, encodes.
        sentences: of each class.
        names: the classes.
        again: whether the process may ask for the same again, so that features are worth keeping (``shared``).

    Raises:
        UserError: classes without a sentence, all named.
    """
    missing = [name for name in names if not sentences.get(name)]
    if missing:
        raise UserError(f"no descriptions for {len(missing)} of {len(names)} classes: {', '.join(missing)}")
    flat = [sentence for name in names for sentence in sentences[name]]
    counts = [len(sentences[name]) for name in names]
    device = backbone.logit_scale.device
    encode = backbone.frozen_text if again else partial(backbone.encode_text, hooked=False)
    with torch.inference_mode(mode=False), torch.no_grad():  # usable in training wherever it was computed
        parts = [
            functional.normalize(encode(backbone.tokenize(flat[i : i + _CHUNK]).to(device)).float(), dim=-1)
            for i in range(0, len(flat), _CHUNK)
        ]
        return torch.stack([part.mean(dim=0) for part in torch.split(torch.cat(parts), counts)])


def unit(features: Tensor) -> Tensor:
    """L2-normalise in fp32: under bf16 a cosine times 100 would be off by tenths."""
    return functional.normalize(features.float(), dim=-1)


def cosine_logits(video: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Logits (B,C) of L2-normalised video (B,E) and text (C,E) or (B,C,E), in fp32 whatever the autocast."""
    with torch.autocast(video.device.type, enabled=False):
        if text.ndim == 3:
            return scale.float() * torch.einsum("be,bce->bc", video.float(), text.float())
        return scale.float() * video.float() @ text.float().T


def contrastive_loss(logits: Tensor) -> Tensor:
    """Symmetric InfoNCE of logits (B,B) whose diagonal are the pairs: the mean of both directions."""
    pairs = torch.arange(len(logits), device=logits.device)
    return 0.5 * (functional.cross_entropy(logits, pairs) + functional.cross_entropy(logits.T, pairs))
