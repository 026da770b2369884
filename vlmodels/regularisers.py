"""Losses that hold a method's features near a teacher's, for every method whose features learn.

``froster``: Huang et al., FROSTER: Frozen CLIP is a Strong Teacher for Open-vocabulary Action Recognition, ICLR 2024.
``taco``: TACO: Towards Task-Consistent Open-Vocabulary Adaptation in Video Recognition, arXiv 2606.25478. Forms and
defaults are those of the released code. Both act in training alone: what they add trains and stays in adapter files,
so that a run resumes exactly, and never reaches a score.
"""

# Shapes: B clip, T frame, C class, E width of the joint space, R anchor.

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.classifier import cosine_logits, description_features, prompt, unit
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Method = Any  # ``methods.base.Method``, which builds these: its type here would make a circle
Output = Any  # ``methods.base.Output``
RESIDUAL = 0.1
"""FROSTER's weight of a projection beside the feature itself."""


def build_regulariser(method: Method) -> Regulariser | None:
    """Build what ``method.config.regularise`` names, after ``attach``; None for "none".

    Raises:
        UserError: the method has no features that learn, or for taco, no cosine that a projection could stand before.
    """
    kind = method.config.regularise
    if kind == "none":
        return None
    if not method.features_learn:
        raise UserError(
            f"the features of {method.name} do not learn: there is nothing to hold near a teacher's; "
            "set method.regularise=none"
        )
    if kind == "froster":
        return Froster(method)
    if not method.trains_by_cosine:
        raise UserError(
            f"taco's projection stands between a video's feature and its cosines with the class texts, but "
            f"{method.name} with these settings trains a classifier; set method.regularise=froster or none"
        )
    return Taco(method)


def regularised(method: Method, args: tuple[Tensor, ...], out: Output) -> Output | None:
    """Complete the output of a training step; a forward hook of the method, so that DDP sees what it uses."""
    if method.regulariser is None or not method.training or not torch.is_grad_enabled():
        return None
    completed: Output = method.regulariser(method, args[0], out)
    return completed


class Regulariser(nn.Module, ABC):
    """Adds a weighted loss to a training step's output, ``extra[config.regularise]``; a part of its method."""

    teacher: FrozenTeacher | MovingTeacher

    @abstractmethod
    def forward(self, method: Method, frames: Tensor, out: Output) -> Output:
        """Return ``out`` with the loss, and what else the step's own losses shall see."""

    def after_step(self, method: Method) -> None:
        """Follow a step of the optimizer."""


class Froster(Regulariser):
    """``weight * (1 - cos(g_v(video), frozen video) + 1 - cos(g_t(text), frozen text))``, means over clips and classes.

    g adds to a feature z ``0.1 W2 gelu(W1 z)``, without biases; W2 starts at zero. Two maps of 2 E^2 parameters each,
    or one where no text learns. The teacher is the backbone without the method. The paper distils each frame's feature;
    here it is the clip's, which is what every method has.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.teacher = FrozenTeacher(method)
        self.video = residual_projection(method.backbone.spec.embed_dim)
        self.text = residual_projection(method.backbone.spec.embed_dim) if method.text_learns else None

    def forward(self, method: Method, frames: Tensor, out: Output) -> Output:
        """Add the loss."""
        video, text = self.teacher(method, frames)
        with torch.autocast(frames.device.type, enabled=False):
            loss = distance(self.video, out.video, video)
            if self.text is not None:
                loss = loss + distance(self.text, out.text, text)
        return out._replace(extra={**out.extra, "froster": method.config.froster_weight * loss})


def residual_projection(width: int) -> nn.Sequential:
    """Create ``W2 gelu(W1 z)``, which starts at zero."""
    first, second = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
    nn.init.kaiming_normal_(first.weight)
    nn.init.zeros_(second.weight)
    return nn.Sequential(first, nn.GELU(), second)


def distance(projection: nn.Module, features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of ``1 - cos(z + 0.1 projection(z), teacher)`` over features z (...,E)."""
    return 1 - functional.cosine_similarity(features + RESIDUAL * projection(features), teacher, dim=-1).mean()


class Taco(Regulariser):
    """``weight * KL(p_teacher, p_student)``, p the softmax over classes of ``scale (v A')(A t')`` for anchors A (R,E).

    The anchors are random directions, new in each step. v is the clip's feature z behind the specialisation projection
    ``unit(z + W2 (W1 z + b1) + b2)``, with 2 E hidden units and W2, b2 at zero: ``4 E^2 + 3 E`` parameters. The step's
    own logits use v too; scores use z. The code projects z before it is L2-normalised, which changes the biases alone;
    there the projection also learns at 13.3 times the towers' rate, here at the same.

    The teacher is the method with the moving average of what trains, ``momentum`` the weight of its past (0.9998);
    with momentum 1 it is the frozen backbone. The average is as large as the adapter and stays in its file.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        width = method.backbone.spec.embed_dim
        moves = method.config.taco_momentum < 1
        self.teacher = MovingTeacher(method) if moves else FrozenTeacher(method)
        up, down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(down.weight)
        nn.init.zeros_(down.bias)
        self.projection = nn.Sequential(up, down)
        self._anchors: Tensor | None = None  # of this step, whose passes share them

    def forward(self, method: Method, frames: Tensor, out: Output) -> Output:
        """Add the loss, and put the projected feature and its logits in place of the method's."""
        scale, config = method.cosine_scale, method.config
        with torch.autocast(frames.device.type, enabled=False):
            video = unit(out.video + self.projection(out.video))
        logits = cosine_logits(video, out.text, scale)
        if self._anchors is None:
            self._anchors = unit(torch.randn(config.taco_anchors, video.shape[-1], device=video.device))
        own = relations(video, out.text, self._anchors, scale)
        their_video, their_text = self.teacher(method, frames)
        theirs = relations(their_video, their_text, self._anchors, scale)
        loss = functional.kl_div(own.log_softmax(dim=-1), theirs.softmax(dim=-1), reduction="batchmean")
        return out._replace(logits=logits, video=video, extra={**out.extra, "taco": config.taco_weight * loss})

    def after_step(self, method: Method) -> None:
        """Move the average on, and forget the anchors."""
        self._anchors = None
        if isinstance(self.teacher, MovingTeacher):
            self.teacher.follow(method)


def relations(video: Tensor, text: Tensor, anchors: Tensor, scale: Tensor) -> Tensor:
    """Return ``scale (v A')(A t')`` (B,C) in fp32 for video (B,E), text (C,E) or (B,C,E) and anchors (R,E)."""
    with torch.autocast(video.device.type, enabled=False):
        return cosine_logits(video @ anchors.T, text @ anchors.T, scale)


class Kept(nn.Module):
    """Copies of tensors, in order; persistent ones stay in adapter files."""

    def __init__(self, tensors: Iterable[Tensor], *, persistent: bool) -> None:
        super().__init__()
        for index, tensor in enumerate(tensors):
            self.register_buffer(str(index), tensor.detach().clone(), persistent=persistent)

    def values(self) -> list[Tensor]:
        """Return the copies."""
        return list(self.buffers())


class FrozenTeacher(nn.Module):
    """The backbone without the method: of base weights that train it keeps a copy from before training."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.start = Kept(_trained(method.backbone), persistent=False)

    @torch.no_grad()
    def forward(self, method: Method, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return L2-normalised features of clips (B,T,3,H,W) and of the set classes' plain prompts."""
        video = self.video(method, frames)
        with standing_in(_trained(method.backbone), self.start.values()):
            return video, method.cached("frozen classes", (), lambda: frozen_classes(method))

    @torch.no_grad()
    def video(self, method: Method, frames: Tensor) -> Tensor:
        """Return the features of clips alone, which are what a teacher costs."""
        with standing_in(_trained(method.backbone), self.start.values()):
            return unit(method.backbone.encode_video(frames, hooked=False).clip)


def frozen_classes(method: Method) -> Tensor:
    """Return the frozen tower's L2-normalised features (C,E) of the template with each class name."""
    texts = {name: [prompt(method.name_in_text(name), method.config.template)] for name in method.classes}
    return unit(description_features(method.backbone, texts, method.classes))


class MovingTeacher(nn.Module):
    """The method itself, in eval mode, with the moving average of what trains."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.average = Kept(_trained(method), persistent=True)

    @torch.no_grad()
    def forward(self, method: Method, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return L2-normalised features of clips (B,T,3,H,W), and of the classes: (C,E) or (B,C,E)."""
        with standing_in(_trained(method), self.average.values()), _evaluating(method):
            out = method.forward(frames)
        return out.video, out.text

    @torch.no_grad()
    def video(self, method: Method, frames: Tensor) -> Tensor:
        """Return the features of clips alone."""
        with standing_in(_trained(method), self.average.values()), _evaluating(method):
            features: Tensor = method.encode_video(frames)
        return features

    @torch.no_grad()
    def follow(self, method: Method) -> None:
        """Take a step towards the method's parameters."""
        for average, parameter in zip(self.average.values(), _trained(method), strict=True):
            average.lerp_(parameter, 1 - method.config.taco_momentum)


@contextlib.contextmanager
def _evaluating(method: Method) -> Iterator[Method]:
    training = method.training
    try:
        yield method.eval()
    finally:
        method.train(training)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    """Return what trains of a backbone, or of a method but for its regulariser."""
    return [p for name, p in module.named_parameters() if p.requires_grad and not name.startswith("regulariser.")]


@contextlib.contextmanager
def standing_in(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """Let ``values`` stand in for the parameters' own, without a trace in graphs that were recorded before."""
    own = [parameter.data for parameter in parameters]
    device = parameters[0].device.type if parameters else "meta"
    apart: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if device != "meta" and torch.is_autocast_enabled(device):  # it keeps its copies by parameter, not by value
        apart = torch.autocast(device, torch.get_autocast_dtype(device), cache_enabled=False)
    try:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value
        with apart:
            yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.data = value
