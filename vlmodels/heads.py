"""A classifier of fixed classes, for methods that score videos without class texts, and its way with other classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vlmodels.classifier import cosine_logits, unit
from vlmodels.errors import UserError
from vlmodels.methods.base import Output

if TYPE_CHECKING:
    from vlmodels.backbone import VideoFeatures
    from vlmodels.methods.base import Method


class ClassHead(nn.Module):
    """Dropout and a linear layer with a row per class that it is trained on: ``width C + C`` parameters.

    Args:
        width: of its input.
        classes: names, in the order of its rows.
        dropout: of its input.
        std: of the weights' normal initialisation; biases start at 0.

    Raises:
        UserError: fewer than two classes.
    """

    def __init__(self, width: int, classes: Sequence[str], *, dropout: float = 0.0, std: float = 0.02) -> None:
        super().__init__()
        if len(classes) < 2:
            raise UserError(
                "this method has a classifier of fixed classes and is built for those that it trains on: "
                f"give it at least 2 class names, not {len(classes)}"
            )
        self.rows = {name: row for row, name in enumerate(classes)}
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(width, len(classes))
        nn.init.normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    def covers(self, names: Sequence[str]) -> bool:
        """Whether it was built for all these classes; others can only be scored by their texts."""
        return all(name in self.rows for name in names)

    def forward(self, x: Tensor, names: Sequence[str]) -> Tensor:
        """Logits (B,C) of ``x`` (B,width) for ``names``, which it covers, in fp32."""
        logits: Tensor = self.linear(self.dropout(x)).float()
        if tuple(names) == tuple(self.rows):
            return logits
        return logits[:, [self.rows[name] for name in names]]


def class_token_output(method: Method, head: ClassHead, frames: Tensor) -> Output:
    """``head_output`` for clips (B,T,3,H,W), of the normed class token averaged over frames."""
    features = method.backbone.encode_video(frames)
    return head_output(method, head, features, method.backbone.video_norm(features.tokens.cls).mean(dim=1))


def head_output(method: Method, head: ClassHead, features: VideoFeatures, pooled: Tensor) -> Output:
    """What a method gives whose classifier scores ``pooled`` (B,D)."""
    video, text = unit(features.clip), method.encode_classes()
    texts = cosine_logits(video, text, method.backbone.logit_scale).detach()
    return Output(beside_texts(head, pooled, method.classes, texts), video, text)


def beside_texts(head: ClassHead, pooled: Tensor, names: Sequence[str], texts: Tensor) -> Tensor:
    """Logits (B,C) of a classifier for the classes that it knows, and of the class texts for all others.

    Logits of the two are of unlike size. So the texts say how likely the known classes are *together*, and the
    classifier shares that out among them (our choice). Among known classes alone this is the classifier's own
    softmax, and among unknown ones alone zero-shot CLIP.

    Args:
        head: the classifier.
        pooled: its input (B,D).
        names: the C classes.
        texts: logits (B,C) of the class texts.
    """
    known = [index for index, name in enumerate(names) if head.covers([name])]
    if not known:
        return texts
    shares = head(pooled, [names[index] for index in known]).log_softmax(dim=-1)
    together = texts[:, known].logsumexp(dim=-1, keepdim=True)
    return texts.index_copy(1, torch.tensor(known, device=texts.device), shares + together)
