"""OmniCLIP's temporal parts: the parallel temporal adapter, the temporal encoding, and the attention over frames.

Liu et al., OmniCLIP, ECAI 2024 ([P] below).
"""

# Shapes: B clip, T frame, S token place, L query, M key, D width of a tower, E width of the joint space.

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.layout import temporal_positions

if TYPE_CHECKING:
    from vlmodels.backbone import VideoFeatures
    from vlmodels.clip_context import ClipContext


class Attention(nn.Module):
    """Multi-head attention along the second axis, at every place of the third axis by itself.

    With three projections instead of a packed one, one fused call takes every (place, head) as a head, as a view: no
    sequence is copied.

    Args:
        width: D.
        heads: number of heads, a divisor of D.
        bias: whether query, key and value have a bias.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend from ``x`` (B,L,D) or (B,L,S,D) to ``source`` (B,M,D) or (B,M,S,D); shaped as ``x``."""
        projected = (self.query(x), self.key(source), self.value(source))
        query, key, value = (rearrange(p, "b l ... (h d) -> b (... h) l d", h=self.heads) for p in projected)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = rearrange(mixed, "b (s h) l d -> b l s (h d)", h=self.heads)
        out: Tensor = self.out(mixed if x.ndim == 4 else rearrange(mixed, "b l 1 d -> b l d"))
        return out


def to_tracks(x: Tensor, context: ClipContext) -> list[Tensor]:
    """Split a video tower's sequence into tracks (B,T,S,D): the same S token places in every frame.

    A joint sequence gives two: its class token with a single time step, and all other tokens.
    """
    if context.joint:
        cls = rearrange(x[:, :1], "b 1 d -> b 1 1 d")
        return [cls, rearrange(x[:, 1:], "b (s t) d -> b t s d", t=context.frames)]
    return [rearrange(x, "(b t) s d -> b t s d", b=context.batch, t=context.frames)]


def from_tracks(tracks: list[Tensor], context: ClipContext) -> Tensor:
    """Join tracks to a video tower's sequence; the inverse of ``to_tracks``."""
    if context.joint:
        cls, others = tracks
        return torch.cat([rearrange(cls, "b 1 1 d -> b 1 d"), rearrange(others, "b t s d -> b (s t) d")], dim=1)
    return rearrange(tracks[0], "b t s d -> (b t) s d")


class TemporalEncoding(nn.Module):
    """A learned row (D) per frame, added to all tokens of the frame ([P] eq. 1), zero at the start.

    For other numbers of frames, rows are interpolated. A joint sequence's class token belongs to no frame and gets no
    row, as in ViCLIP.
    """

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(frames, width))

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """Return the tokens plus the encoding, of the same shape."""
        *others, track = to_tracks(x, context)
        rows = temporal_positions(self.table[None], context.frames).to(x.dtype)
        return from_tracks([*others, track + rearrange(rows, "t d -> t 1 d")], context)


class TemporalAdapter(nn.Module):
    """PTA: ``alpha Up(Attn(Down(x)))`` ([P] eq. 7, and the factor of eq. 4), each token place along time.

    Our choices, where the paper is silent: a norm before the attention, as the input is not normalised; ``Up`` zero and
    alpha 1 at the start, so that step 0 adds nothing but has a gradient.

    Args:
        width: width of the tower.
        hidden: width of the bottleneck.
        heads: number of heads, a divisor of ``hidden``.
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
        """Return what is added to the tokens ``x`` of a video tower, of the same shape."""
        hidden = self.down(x)
        tracks = to_tracks(self.norm(hidden), context)
        mixed = from_tracks([self.attention(track, track) for track in tracks], context)
        if self.inner_residual:
            mixed = hidden + mixed
        # alpha scales the weights: cheaper than scaling all tokens
        return functional.linear(mixed, self.alpha * self.up.weight, self.alpha * self.up.bias)


class CascadedAdapter:
    """A hook before a block, ``x + PTA(x)``; it registers no parameters of its own."""

    def __init__(self, adapter: TemporalAdapter) -> None:
        self.adapter = adapter

    def __call__(self, x: Tensor, context: ClipContext) -> Tensor:
        """Return the block's input."""
        out: Tensor = x + self.adapter(x, context)
        return out


class FrameAttention(nn.Module):
    """Attention over the frames' features, averaged to the video's ([P] eq. 5): ``mean_t(f_t + MHA(LN f)_t)``.

    [P] prints no residual; but a random MHA alone would undo CLIP's alignment. With the residual, the output projection
    starts at zero, so the feature starts as CLIP's.

    Args:
        width: E.
        heads: number of heads, a divisor of E.
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
        """Return features of the clips (B,E), not normalised."""
        frames = self.norm(features.frame)
        attended: Tensor = reduce(self.attention(frames, frames), "b t e -> b e", "mean")
        return features.clip + attended if self.residual else attended  # features.clip is the frames' mean
