"""The sites of a block at which a method may act, and the run of a block with hooks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from vlmodels.clip_context import ClipContext

if TYPE_CHECKING:
    from vlmodels.families.views import BlockView, Call

Site = Literal[
    "embed",  # layer 0. video: patches + prefix + positions, before their norm; text: words, before positions
    "tokens",  # the block's input; may change the number of tokens
    "qkv_weight",  # input: the packed query, key and value weight (3D,D); the output replaces it
    "parallel_attn",  # input: the block's input; the output is added to the attention's
    "post_attn",  # the attention's output, before the residual sum
    "pre_mlp",  # the residual stream between attention and MLP
    "parallel_mlp",  # input: that stream; the output is added to the MLP's
    "parallel_mlp_ln",  # the same, but the input is norm2 of that stream
    "parallel_block",  # input: the block's input; the output is added to the block's
    "parallel_block_ln",  # the same, but the input is norm1 of the block's input, which the block computes anyway
]

Hooks = dict[str, list["Hook"]]

Hook = Callable[[Tensor, ClipContext], Tensor]


def run_block(block: BlockView, x: Tensor, call: Call, hooks: Hooks, context: ClipContext) -> Tensor:
    """Run the parts of a frozen block in the block's order, with hooks at their sites."""

    def apply(site: Site, value: Tensor) -> Tensor:
        for hook in hooks.get(site, ()):
            value = hook(value, context)
        return value

    def add_parallel(site: Site, source: Tensor, total: Tensor) -> Tensor:
        for hook in hooks.get(site, ()):
            total = total + hook(source, context)
        return total

    x = apply("tokens", x)
    normed = block.norm1(x)
    weight = apply("qkv_weight", block.qkv_weight) if "qkv_weight" in hooks else None
    attended = apply("post_attn", block.attention(normed, call, weight))
    u = add_parallel("parallel_attn", x, x + block.scale1(attended))
    u = apply("pre_mlp", u)
    normed_u = block.norm2(u)
    out = add_parallel("parallel_mlp", u, u + block.scale2(block.mlp(normed_u)))
    out = add_parallel("parallel_mlp_ln", normed_u, out)
    out = add_parallel("parallel_block", x, out)
    return add_parallel("parallel_block_ln", normed, out)
