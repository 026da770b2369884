"""OmniCLIP's self-prompt generator: tokens of a coarser scale, pooled from the patches that a block gets."""

# Shapes: B clip, T frame, ROW COL place of a patch, K prompt, D width.

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.layout import join_tokens, split_tokens

if TYPE_CHECKING:
    from vlmodels.clip_context import ClipContext


class SelfPrompts(nn.Module):
    """SPG: ``Projector(Pool(patches))`` (Liu et al., OmniCLIP, ECAI 2024, eq. 6), per frame.

    Pools 2 x 2 patches, fewer at the edge of an odd grid, without the class token and the former prompts. That each
    block gets new ones, in place of the former, is our reading; that the projector has no residual and the prompts have
    no positions is ours, as the paper is silent.

    Args:
        width: width of the tower.
        hidden: hidden units of the projector ``Linear-GELU-Linear``; None leaves it out, and no parameters remain.
        pool: "avg", or "max" as in the ablation.
    """

    def __init__(self, width: int, hidden: int | None, pool: Literal["avg", "max"] = "avg") -> None:
        super().__init__()
        self.pool = pool
        self.projector: nn.Module = nn.Identity()
        if hidden is not None:
            self.projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def prompts(self, patches: Tensor) -> Tensor:
        """Return prompts (B,T,K,D), row by row, of patches (B,T,ROW,COL,D)."""
        pool = functional.avg_pool2d if self.pool == "avg" else functional.max_pool2d
        frames = rearrange(patches, "b t row col d -> (b t) row col d")
        pooled = pool(rearrange(frames, "n row col d -> n d row col"), 2, ceil_mode=True)
        prompts: Tensor = self.projector(rearrange(pooled, "n d row col -> n (row col) d"))
        return rearrange(prompts, "(b t) k d -> b t k d", b=patches.shape[0])

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """Return the tokens ``x`` of a video tower with new prompts at the end, in place of former ones.

        A joint sequence gets the prompts of all frames, place by place and time-minor, like its patches.
        """
        tokens = split_tokens(x, context)
        prompts = self.prompts(tokens.patches)
        if context.joint:
            prompts = rearrange(prompts, "b t k d -> b 1 (k t) d")
        return join_tokens(replace(tokens, extra=prompts), context)
