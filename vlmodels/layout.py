"""Token sequences of the two backbone families, taken apart into (frame, row, column) and put together again.

Per frame (CLIP): ``(B*T, R+P+K, D)``, each frame with R tokens before its patches (a class token, or none), its P
patches row by row, and K tokens that a method appended. Joint (ViCLIP): ``(B, 1+P*T+K, D)``, one class token, and the
patches *patch-major and time-minor*: the T frames of patch 0, then those of patch 1.
"""

# Shapes: B clip, T frame, R token before the patches, P patch, ROW COL its place, K appended token, D width.

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from vlmodels.clip_context import ClipContext


@dataclass(frozen=True, slots=True)
class Tokens:
    """The parts of a sequence; F is T, or 1 where a clip has one class token for all frames."""

    prefix: Tensor  # (B,F,R,D): the class token, or none
    patches: Tensor  # (B,T,ROW,COL,D)
    extra: Tensor  # (B,F,K,D): tokens that methods appended, often none


def split_tokens(x: Tensor, context: ClipContext) -> Tokens:
    """Split a video tower's sequence into its parts, as views where the layout allows."""
    batch, frames, (rows, columns) = context.batch, context.frames, context.grid
    if context.joint:
        end = 1 + rows * columns * frames
        patches = rearrange(x[:, 1:end], "b (row col t) d -> b t row col d", row=rows, col=columns, t=frames)
        return Tokens(x[:, None, :1], patches, rearrange(x[:, end:], "b k d -> b 1 k d"))
    x = rearrange(x, "(b t) n d -> b t n d", b=batch, t=frames)
    start, end = context.prefix, context.prefix + rows * columns
    patches = rearrange(x[:, :, start:end], "b t (row col) d -> b t row col d", row=rows, col=columns)
    return Tokens(x[:, :, :start], patches, x[:, :, end:])


def join_tokens(tokens: Tokens, context: ClipContext) -> Tensor:
    """Join the parts to a video tower's sequence; the inverse of ``split_tokens``."""
    if context.joint:
        patches = rearrange(tokens.patches, "b t row col d -> b (row col t) d")
        extra = rearrange(tokens.extra, "b 1 k d -> b k d")
        return torch.cat([tokens.prefix[:, 0], patches, extra], dim=1)
    patches = rearrange(tokens.patches, "b t row col d -> b t (row col) d")
    return rearrange(torch.cat([tokens.prefix, patches, tokens.extra], dim=2), "b t n d -> (b t) n d")


def joint_sequence(visual: Any, patches: Tensor, context: ClipContext) -> Tensor:
    """Build ViCLIP's input (B,1+P*T,D) from projected patches (B*T,P,D).

    Every frame gets the same spatial positions and every patch the same temporal ones; the class token, one per clip,
    gets no temporal position.
    """
    positions = visual.positional_embedding.to(patches.dtype)
    x = rearrange(patches + positions[1:], "(b t) p d -> b t p d", b=context.batch, t=context.frames)
    times = temporal_positions(visual.temporal_positional_embedding, context.frames)
    x = rearrange(x + rearrange(times.to(x.dtype), "t d -> t 1 d"), "b t p d -> b (p t) d")
    cls = repeat(visual.class_embedding.to(x.dtype) + positions[0], "d -> b 1 d", b=context.batch)
    return torch.cat([cls, x], dim=1)


def temporal_positions(table: Tensor, frames: int) -> Tensor:
    """Resize ViCLIP's temporal table (1,T0,D) to a number of frames: (frames,D).

    One frame gets the mean row, as in ViCLIP; for other numbers than T0, rows are interpolated linearly (our choice).
    """
    if frames == table.shape[1]:
        return table[0]
    if frames == 1:
        return reduce(table, "1 t d -> 1 d", "mean")
    resized = functional.interpolate(rearrange(table, "1 t d -> 1 d t"), size=frames, mode="linear")
    return rearrange(resized, "1 d t -> t d")
