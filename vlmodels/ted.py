"""M2-CLIP's TED adapter: temporal convolutions of tokens and of frame differences, added to a video tower's tokens.

Wang et al., A Multimodal, Multi-Task Adapting Framework for Video Action Recognition, AAAI 2024.
"""

# Shapes: B clip, T frame, ROW COL place of a patch, D width, m = dims.

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from vlmodels.layout import join_tokens, split_tokens

if TYPE_CHECKING:
    from vlmodels.clip_context import ClipContext


class ConvBottleneck(nn.Module):
    """Down, a depthwise convolution over two axes, up; without activation. Its output is 0 at the start."""

    def __init__(self, width: int, dims: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.down, self.up = nn.Linear(width, dims), nn.Linear(dims, width)
        conv = nn.Conv2d(dims, dims, kernel, padding=padding, groups=dims)
        self.conv = conv.to(
            memory_format=torch.channels_last
        )  # the layout of its input, and so of the weight's gradient
        for zero in (self.down.bias, self.conv.weight, self.conv.bias, self.up.bias):
            assert zero is not None
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the shape of ``x`` (N,H,W,D); the convolution pads H and W with zeros."""
        hidden = self.conv(rearrange(self.down(x), "n h w m -> n m h w"))
        up: Tensor = self.up(rearrange(hidden, "n m h w -> n h w m"))
        return up


class TED(nn.Module):
    """Temporal enhancement (eq. 6) and difference (eq. 7), added to the tokens (eq. 8)."""

    def __init__(self, width: int, dims: int, order: str) -> None:
        super().__init__()
        self.te = ConvBottleneck(width, dims, (3, 1)) if order != "td" else None
        self.td = ConvBottleneck(width, dims, (3, 3)) if order != "te" else None
        self.sequential = order == "sequential"  # TE first (ours)

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """Return tokens of the shape of ``x``, which is not changed in place."""
        tokens = split_tokens(x, context)
        prefix, patches = tokens.prefix, tokens.patches
        _, columns = context.grid
        if self.te is not None:
            if prefix.shape[2]:  # a class token
                prefix = prefix + self.te(prefix)
            enhanced = self.te(rearrange(patches, "b t row col d -> b t (row col) d"))
            patches = patches + rearrange(enhanced, "b t (row col) d -> b t row col d", col=columns)
        if self.td is not None:
            source = patches if self.sequential else tokens.patches
            differences = source[:, 1:] - source[:, :-1]
            differences = torch.cat([torch.zeros_like(source[:, :1]), differences], dim=1)  # 0 for the first frame
            changed = self.td(rearrange(differences, "b t row col d -> (b t) row col d"))
            patches = patches + rearrange(changed, "(b t) row col d -> b t row col d", b=context.batch)
        return join_tokens(dataclasses.replace(tokens, prefix=prefix, patches=patches), context)
