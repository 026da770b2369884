"""M2-CLIP's TED adapter: what changes over time, and what moved, added to a video tower's tokens.

Wang et al., A Multimodal, Multi-Task Adapting Framework for Video Action Recognition, AAAI 2024.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vlmodels.layout import join_tokens, split_tokens

if TYPE_CHECKING:
    from vlmodels.sites import ClipContext


class Bottleneck(nn.Module):
    """Down, a depthwise convolution over two of the axes, up; no activation. Gives 0 until it has learned."""

    def __init__(self, width: int, dims: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.down, self.up = nn.Linear(width, dims), nn.Linear(dims, width)
        conv = nn.Conv2d(dims, dims, kernel, padding=padding, groups=dims)
        self.conv = conv.to(memory_format=torch.channels_last)  # as its input lies, and so the weight's gradient
        for zero in (self.down.bias, self.conv.weight, self.conv.bias, self.up.bias):
            assert zero is not None
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x`` (N,H,W,width); zeros lie beyond the ends of H and W."""
        up: Tensor = self.up(self.conv(self.down(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return up


class TED(nn.Module):
    """Temporal enhancement (eq. 6) and difference (eq. 7), added to the tokens (eq. 8)."""

    def __init__(self, width: int, dims: int, order: str) -> None:
        super().__init__()
        self.te = Bottleneck(width, dims, (3, 1)) if order != "td" else None
        self.td = Bottleneck(width, dims, (3, 3)) if order != "te" else None
        self.sequential = order == "sequential"  # TE first (ours)

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """Tokens of the same shape; ``x`` stays as it is."""
        tokens = split_tokens(x, context)
        cls, patches = tokens.cls, tokens.patches
        if self.te is not None:
            cls = cls + self.te(cls[:, :, None])[:, :, 0]
            patches = patches + self.te(patches.flatten(2, 3)).reshape(patches.shape)
        if self.td is not None:
            source = patches if self.sequential else tokens.patches
            moved = source[:, 1:] - source[:, :-1]
            moved = torch.cat([torch.zeros_like(source[:, :1]), moved], dim=1)  # the first frame has moved nowhere
            patches = patches + self.td(moved.flatten(0, 1)).reshape(patches.shape)
        return join_tokens(dataclasses.replace(tokens, cls=cls, patches=patches), context)
