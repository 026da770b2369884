"""A classifier of fixed classes, for methods that score videos without class texts, and how it scores other classes."""

# Shapes: B clip, T frame, C class, D width of the classifier's input.

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from einops import reduce
from torch import Tensor, nn

from vlmodels.classifier import cosine_logits, unit
from vlmodels.errors import UserError
from vlmodels.methods.base import Output

if TYPE_CHECKING:
    from vlmodels.backbone import VideoFeatures
    from vlmodels.methods.base import Method


class ClassHead(nn.Module):
    """Dropout and a linear layer with one row per training class: ``width C + C`` parameters.

    Args:
        width: D.
        classes: names of the training classes, in the order of the rows.
        dropout: probability of dropping an input.
        std: standard deviation of the initial weights (normal); biases start at 0.

    Raises:
        UserError: fewer than two classes.
    """

    def __init__(self, width: int, classes: Sequence[str], *, dropout: float = 0.0, std: float = 0.02) -> None:
        super().__init__()
        if len(classes) < 2:
            raise UserError(
                "this method has a classifier of fixed classes and is built for its training classes: "
                f"give it at least 2 class names, not {len(classes)}"
            )
        self.rows = {name: row for row, name in enumerate(classes)}
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(width, len(classes))
        nn.init.normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    def covers(self, names: Sequence[str]) -> bool:
        """Return whether all these are training classes; others can only be scored by their texts."""
        return all(name in self.rows for name in names)

    def forward(self, x: Tensor, names: Sequence[str]) -> Tensor:
        """Return fp32 logits (B,C) of ``x`` (B,D) for ``names``, all of them training classes."""
        logits: Tensor = self.linear(self.dropout(x)).float()
        if tuple(names) == tuple(self.rows):
            return logits
        return logits[:, [self.rows[name] for name in names]]


def class_token_output(method: Method, head: ClassHead, frames: Tensor) -> Output:
    """Score clips (B,T,3,H,W) by the pooled token, averaged over frames; see ``head_output``."""
    features = method.backbone.encode_video(frames)
    return head_output(method, head, features, reduce(features.pooled, "b f d -> b d", "mean"))


def head_output(method: Method, head: ClassHead, features: VideoFeatures, pooled: Tensor) -> Output:
    """Return the output of a method whose classifier scores ``pooled`` (B,D)."""
    video, text = unit(features.clip), method.encode_classes()
    text_logits = cosine_logits(video, text, method.backbone.logit_scale).detach()
    return Output(merge_logits(head, pooled, method.classes, text_logits), video, text)


def merge_logits(head: ClassHead, pooled: Tensor, names: Sequence[str], text_logits: Tensor) -> Tensor:
    """Return logits (B,C): the classifier's for its training classes, those of the class texts for all others.

    The two have different scales. So the texts give the probability of the training classes *together*, and the
    classifier divides it among them (our choice). With training classes alone this is the classifier's softmax; with
    other classes alone it is zero-shot CLIP.

    Args:
        head: the classifier.
        pooled: its input (B,D).
        names: the C classes.
        text_logits: logits (B,C) of the class texts.
    """
    known = [index for index, name in enumerate(names) if head.covers([name])]
    if not known:
        return text_logits
    shares = head(pooled, [names[index] for index in known]).log_softmax(dim=-1)
    together = text_logits[:, known].logsumexp(dim=-1, keepdim=True)
    return text_logits.index_copy(1, torch.tensor(known, device=text_logits.device), shares + together)


def untrained_texts(head: str) -> list[str]:
    """Return why texts cannot search the videos of a tower that learned for a classifier (``search_problems``)."""
    if head != "linear":
        return []
    return [
        "with method.head=linear, the video tower learned for its classifier and never saw a text; for text search, "
        "train with method.head=text"
    ]
