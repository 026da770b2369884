"""OmniCLIP's self-prompt generator: tokens of a coarser scale, made of the patches that a block gets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.nn import functional

from vlmodels.layout import join_tokens, split_tokens

if TYPE_CHECKING:
    from vlmodels.sites import ClipContext


class SelfPrompts(nn.Module):
    """SPG: ``Projector(Pool(patches))`` (Liu et al., OmniCLIP, ECAI 2024, eq. 6), per frame.

    Pools 2 x 2 patches, fewer at the edge of an odd grid; class token and former prompts have no part in it.
    No residual around the projector and no positions on the prompts (ours; the paper is silent).

    Args:
        width: of the tower.
        hidden: of the projector ``Linear-GELU-Linear``; None leaves it out, with no parameters at all.
        pool: "avg", or "max" as in the ablation.
    """

    def __init__(self, width: int, hidden: int | None, pool: Literal["avg", "max"] = "avg") -> None:
        super().__init__()
        self.pool = pool
        self.projector: nn.Module = nn.Identity()
        if hidden is not None:
            self.projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def prompts(self, patches: Tensor) -> Tensor:
        """Prompts (B,T,K,D), row by row, of patches (B,T,rows,columns,D)."""
        pool = functional.avg_pool2d if self.pool == "avg" else functional.max_pool2d
        image = patches.flatten(0, 1).permute(0, 3, 1, 2)
        pooled = pool(image, 2, ceil_mode=True).flatten(2).transpose(1, 2)
        prompts: Tensor = self.projector(pooled)
        return prompts.reshape(*patches.shape[:2], *prompts.shape[1:])

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """The tokens ``x`` of a video tower with new prompts at the end, instead of those that were there.

        A joint sequence gets the prompts of all frames, place by place and time-minor, like its patches.
        """
        tokens = split_tokens(x, context)
        prompts = self.prompts(tokens.patches)
        if context.joint:
            prompts = prompts.transpose(1, 2).flatten(1, 2)[:, None]
        return join_tokens(replace(tokens, extra=prompts), context)
