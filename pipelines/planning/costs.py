"""The cost of a training step, from shapes alone: multiply-accumulates forward and backward, and activations kept.

Runs on meta tensors: no weights, no memory, seconds for the largest backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vlmodels.methods.base import Method


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-accumulates (1e9) forward, and forward and backward; bytes (fp32) kept for the backward pass."""

    forward: float = 0.0
    training: float = 0.0
    kept: int = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.forward - other.forward, self.training - other.training, self.kept - other.kept)


@dataclass(frozen=True, slots=True)
class StepCost:
    """Cost of one clip through the video tower and a regulariser's teacher, and of what every pass repeats.

    Repeated are the class prompts, if their tower learns (features of a frozen one are computed once), and products
    that make weights (LoRA). Losses, and prompts made for each video, are small and left out.
    """

    clip: Cost
    text: Cost
    weights: Cost

    def gmacs(self, clips: int, passes: int = 1) -> float:
        """Return the multiply-accumulates (1e9) of a worker's step of ``clips`` clips."""
        return passes * (self.text.training + self.weights.training) + clips * self.clip.training

    def kept(self, clips: int) -> int:
        """Return the bytes of fp32 activations of a pass of ``clips`` clips."""
        return self.text.kept + self.weights.kept + clips * self.clip.kept


def step_cost(method: Method, frames: int, classes: Sequence[str]) -> StepCost:
    """Count what training costs.

    Args:
        method: built on the meta device.
        frames: frames of a clip.
        classes: names of the classes that train; none for retrieval, whose captions are not counted.
    """
    method.train()
    backbone = method.backbone
    sizes = [torch.empty(n, frames, 3, *backbone.spec.image_size, device="meta") for n in (1, 2)]
    one, two = (_count(method, lambda clips=clips: method.encode_video(clips)) for clips in sizes)  # type: ignore[misc]
    clip = two - one
    if method.regulariser is not None:
        clip = replace(clip, training=clip.training + _teacher(method, sizes))
    text = Cost()
    if classes and not backbone.text_is_frozen():
        tokens = backbone.tokenize([method.class_prompt(name) for name in classes]).to("meta")
        below = backbone.frozen_layers("text")
        prefix = backbone.text_prefix(tokens, below) if below else None
        text = _count(method, lambda: backbone.encode_text(tokens, prefix=prefix))
    return StepCost(clip, text, one - clip)


def _teacher(method: Method, sizes: Sequence[Tensor]) -> float:
    """Return the multiply-accumulates (1e9) of a regulariser's teacher for one clip, from those of 1 and 2 clips."""
    from torch.utils.flop_counter import FlopCounterMode

    assert method.regulariser is not None
    totals = []
    for clips in sizes:
        with FlopCounterMode(display=False) as counter:
            method.regulariser.teacher.video(method, clips)
        totals.append(counter.get_total_flops() / 2e9)
    return totals[1] - totals[0]


def _count(method: Method, encode: Callable[[], Tensor]) -> Cost:
    """Run ``encode`` and its backward pass, and count."""
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.flop_counter import FlopCounterMode

    weights = {id(parameter) for parameter in method.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights and id(tensor._base) not in weights:  # noqa: SLF001 - there is no public form
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage  # noqa: SLF001 - a meta tensor has no address
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor), FlopCounterMode(display=False) as counter:
        out = encode()
        forward = counter.get_total_flops()
        held = sum(storage.nbytes() for storage in kept.values())
        if out.requires_grad:
            out.sum().backward()
    method.zero_grad(set_to_none=True)
    return Cost(forward / 2e9, counter.get_total_flops() / 2e9, held)
