"""Classes as text: prompts of class names, features of descriptions, and logits as scaled cosines."""

# Shapes: B clip, C class, E width of the joint space.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from vlmodels.errors import UserError, unprintable

if TYPE_CHECKING:
    from vlmodels.backbone import Backbone

Descriptions = Mapping[str, Mapping[str, Sequence[str]]]  # kind -> class name -> sentences

_CHUNK = 256  # texts encoded at once without a graph


def prompt(name: str, template: str) -> str:
    """Return the text of a class: the template with its name, underscores as spaces."""
    return template.replace("{}", name.replace("_", " "))


def check_names(names: Sequence[str]) -> None:
    """Raise UserError unless ``names`` are at least two, distinct, not blank, and of characters that print."""
    if len(names) < 2:
        raise UserError(f"a classifier needs at least 2 classes, not {len(names)}: {list(names)}")
    blank = [index for index, name in enumerate(names) if not name.strip()]
    if blank:
        raise UserError(f"class names must not be blank (positions {blank})")
    for name in names:
        if character := unprintable(name):
            raise UserError(f"the class name {ascii(name)[:100]} holds the character {character}; rename the class")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"class names must be distinct; more than once: {', '.join(repeated)}")


def description_features(
    backbone: Backbone, sentences: Mapping[str, Sequence[str]], names: Sequence[str], *, cache: bool = True
) -> Tensor:
    """Return one feature (C,E) per class: the mean of the L2-normalised frozen features of its sentences.

    Every sentence has the same weight, whatever the norm of its feature; classes may have unequal numbers of them.

    Args:
        backbone: encodes with its text tower, without hooks.
        sentences: class name -> its sentences.
        names: the C classes.
        cache: whether to keep the features for the life of the process (``text_cache``), for texts that come again.

    Raises:
        UserError: some classes have no sentence; the message names all of them.
    """
    missing = [name for name in names if not sentences.get(name)]
    if missing:
        raise UserError(f"no descriptions for {len(missing)} of {len(names)} classes: {', '.join(missing)}")
    texts = [sentence for name in names for sentence in sentences[name]]
    counts = [len(sentences[name]) for name in names]
    device = backbone.logit_scale.device
    encode = backbone.frozen_text if cache else partial(backbone.encode_text, hooked=False)
    with torch.inference_mode(mode=False), torch.no_grad():  # so that training may use it later
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        features = torch.cat([unit(encode(backbone.tokenize(chunk).to(device))) for chunk in chunks])
        return torch.stack([of_class.mean(dim=0) for of_class in torch.split(features, counts)])


def unit(features: Tensor) -> Tensor:
    """Return L2-normalised features in fp32: in bf16, a cosine times 100 would be off by tenths."""
    return functional.normalize(features.float(), dim=-1)


def cosine_logits(video: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Return logits (B,C) of L2-normalised video (B,E) and text (C,E) or (B,C,E), in fp32 even under autocast."""
    with torch.autocast(video.device.type, enabled=False):
        if text.ndim == 3:
            return scale.float() * torch.einsum("be,bce->bc", video.float(), text.float())
        return scale.float() * video.float() @ text.float().T


def contrastive_loss(logits: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss of logits (B,B), the mean of both directions; pairs are on the diagonal."""
    pairs = torch.arange(len(logits), device=logits.device)
    return 0.5 * (functional.cross_entropy(logits, pairs) + functional.cross_entropy(logits.T, pairs))
