"""OmniCLIP's parts that look along time: the parallel temporal adapter, the temporal encoding, the last attention.

Liu et al., OmniCLIP, ECAI 2024 ([P] below).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.layout import temporal_positions

if TYPE_CHECKING:
    from vlmodels.backbone import VideoFeatures
    from vlmodels.sites import ClipContext


class Attention(nn.Module):
    """Multi-head attention along the second dimension, at every place of a third one by itself.

    Three projections instead of a packed one, so that one fused call takes every (place, head) as a head of its
    own, as a view: no sequence is copied.

    Args:
        width: D.
        heads: a divisor of D.
        bias: of query, key and value.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend from ``x`` (B,L,D) or (B,L,S,D) to ``source`` (B,M,D) or (B,M,S,D); shaped as ``x``."""
        projected = (self.query(x), self.key(source), self.value(source))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).flatten(2, -2).transpose(1, 2) for part in projected)
        mixed = functional.scaled_dot_product_attention(query, key, value)  # (B,S*heads,L,D/heads)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape))
        return out


def by_time(x: Tensor, context: ClipContext) -> list[Tensor]:
    """A video tower's sequence as tracks (B,T,S,D): the same S token places in every frame.

    A joint sequence gives two: its one class token, which has a single time step, and all the rest.
    """
    if context.joint:
        return [x[:, None, :1], x[:, 1:].reshape(len(x), -1, context.frames, x.shape[-1]).transpose(1, 2)]
    return [x.reshape(context.batch, context.frames, *x.shape[1:])]


def from_time(tracks: list[Tensor], context: ClipContext) -> Tensor:
    """The inverse of ``by_time``."""
    if context.joint:
        return torch.cat([tracks[0][:, 0], tracks[1].transpose(1, 2).flatten(1, 2)], dim=1)
    return tracks[0].flatten(0, 1)


class TemporalEncoding(nn.Module):
    """A learnable row for each frame, added to all its tokens ([P] eq. 1), zero at the start.

    Other numbers of frames than it was built for are interpolated. A joint sequence's class token belongs to no
    frame and gets none, as in ViCLIP.
    """

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(frames, width))

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """Tokens with the encoding added; of the same shape."""
        *others, track = by_time(x, context)
        rows = temporal_positions(self.table[None], context.frames).to(x.dtype)
        return from_time([*others, track + rows[:, None]], context)


class TemporalAdapter(nn.Module):
    """PTA: ``alpha Up(Attn(Down(x)))`` ([P] eq. 7, and the factor of eq. 4), each token place along time.

    Ours, where the paper is silent: a norm before the attention, as the input is the raw stream; ``Up`` zero and
    alpha 1 at the start, so that step 0 adds nothing, yet learns.

    Args:
        width: of the tower.
        hidden: of the bottleneck.
        heads: a divisor of ``hidden``.
        inner_residual: ``Down(x) + Attn(Down(x))``, as in a block, instead of eq. 7 as printed.
    """

    def __init__(self, width: int, hidden: int, heads: int, *, inner_residual: bool = False) -> None:
        super().__init__()
        self.inner_residual = inner_residual
        self.down, self.norm, self.up = nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, width)
        self.attention = Attention(hidden, heads)
        self.alpha = nn.Parameter(torch.ones(1))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """What is added for the tokens ``x`` of a video tower; of the same shape."""
        hidden = self.down(x)
        mixed = from_time([self.attention(z, z) for z in by_time(self.norm(hidden), context)], context)
        if self.inner_residual:
            mixed = hidden + mixed
        # alpha on the weights, not on all tokens
        return functional.linear(mixed, self.alpha * self.up.weight, self.alpha * self.up.bias)


class InSeries:
    """A hook before a block: ``x + PTA(x)``; keeps no parameters of its own."""

    def __init__(self, adapter: TemporalAdapter) -> None:
        self.adapter = adapter

    def __call__(self, x: Tensor, context: ClipContext) -> Tensor:
        """The block's input."""
        out: Tensor = x + self.adapter(x, context)
        return out


class FrameAttention(nn.Module):
    """The video's feature from its frames' ([P] eq. 5): ``mean_t(f_t + MHA(LN f)_t)``.

    [P] prints no residual; but a random MHA alone would undo CLIP's alignment. With it, the output projection
    starts at zero and the feature as CLIP's.

    Args:
        width: E.
        heads: a divisor of E.
        residual: False is eq. 5 as printed, ``mean_t(MHA(f)_t)``.
    """

    def __init__(self, width: int, heads: int, *, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.norm = nn.LayerNorm(width) if residual else nn.Identity()
        self.attention = Attention(width, heads)
        if residual:
            nn.init.zeros_(self.attention.out.weight)
            nn.init.zeros_(self.attention.out.bias)

    def forward(self, features: VideoFeatures) -> Tensor:
        """Features of the clips (B,E), not normalised."""
        frames = self.norm(features.frame)
        attended: Tensor = self.attention(frames, frames).mean(dim=1)
        return features.clip + attended if self.residual else attended  # the frames' mean is the clip's
