"""The token sequences of the two backbone families, and the way between them and (frame, row, column).

Per frame (CLIP): ``(B*T, 1+P+K, D)``, each frame with a class token, its P patches row by row, and K tokens that a
method appended. Joint (ViCLIP): ``(B, 1+P*T+K, D)``, one class token, and the patches *patch-major and time-minor*:
the T frames of patch 0, then those of patch 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from vlmodels.sites import ClipContext


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sequence taken apart; F is T, or 1 where there is one class token per clip."""

    cls: Tensor  # (B,F,D)
    patches: Tensor  # (B,T,rows,columns,D)
    extra: Tensor  # (B,F,K,D): what methods appended, often nothing


def split_tokens(x: Tensor, context: ClipContext) -> Tokens:
    """Take a video tower's sequence apart (views where the layout allows)."""
    batch, frames, (rows, columns) = context.batch, context.frames, context.grid
    if context.joint:
        end = 1 + rows * columns * frames
        patches = x[:, 1:end].reshape(batch, rows, columns, frames, -1).permute(0, 3, 1, 2, 4)
        return Tokens(x[:, :1], patches, x[:, None, end:])
    x = x.reshape(batch, frames, *x.shape[1:])
    end = 1 + rows * columns
    patches = x[:, :, 1:end].reshape(batch, frames, rows, columns, -1)
    return Tokens(x[:, :, 0], patches, x[:, :, end:])


def join_tokens(tokens: Tokens, context: ClipContext) -> Tensor:
    """Put a video tower's sequence together again; the inverse of ``split_tokens``."""
    if context.joint:
        patches = tokens.patches.permute(0, 2, 3, 1, 4).flatten(1, 3)
        return torch.cat([tokens.cls, patches, tokens.extra[:, 0]], dim=1)
    parts = [tokens.cls[:, :, None], tokens.patches.flatten(2, 3), tokens.extra]
    return torch.cat(parts, dim=2).flatten(0, 1)


def joint_sequence(visual: Any, patches: Tensor, context: ClipContext) -> Tensor:
    """ViCLIP's input (B,1+P*T,D) from projected patches (B*T,P,D).

    Positions in space are the same in every frame, those in time the same in every patch; the class token, once
    per clip, gets none in time.
    """
    positions = visual.positional_embedding.to(patches.dtype)
    x = (patches + positions[1:]).reshape(context.batch, context.frames, *patches.shape[1:])
    times = temporal_positions(visual.temporal_positional_embedding, context.frames)
    x = (x + times.to(x.dtype)[:, None]).transpose(1, 2).flatten(1, 2)
    cls = (visual.class_embedding.to(x.dtype) + positions[0]).expand(context.batch, 1, -1)
    return torch.cat([cls, x], dim=1)


def temporal_positions(table: Tensor, frames: int) -> Tensor:
    """ViCLIP's temporal table (1,T0,D) for so many frames: (frames,D).

    One frame gets the mean, as in ViCLIP; other numbers than T0 are interpolated linearly (our choice).
    """
    if frames == table.shape[1]:
        return table[0]
    if frames == 1:
        return table.mean(dim=1)
    return functional.interpolate(table.transpose(1, 2), size=frames, mode="linear")[0].T
