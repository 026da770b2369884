"""The sites of a block at which a method may act, and the run of a block with hooks at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from einops import rearrange
from torch import Tensor
from torch.nn import functional

Tower = Literal["video", "text"]

Site = Literal[
    "embed",  # layer 0. video: patches + class + positions, before ln_pre; text: words, before positions
    "tokens",  # the block's input; may change the number of tokens
    "qkv_weight",  # input: the packed query, key and value weight (3D,D); the output replaces it
    "parallel_attn",  # input: the block's input; the output is added to the attention's
    "post_attn",  # the attention's output, before the residual sum
    "pre_mlp",  # the residual stream between attention and MLP
    "parallel_mlp",  # input: that stream; the output is added to the MLP's
    "parallel_mlp_ln",  # the same, but the input is ln_2 of that stream
    "parallel_block",  # input: the block's input; the output is added to the block's
    "parallel_block_ln",  # the same, but the input is ln_1 of the block's input, which the block computes anyway
]

Hooks = dict[str, list["Hook"]]


@dataclass(frozen=True, slots=True)
class ClipContext:
    """The layout of the tokens that a hook gets: ``(batch * frames, N, D)``, or ``(batch, N, D)`` if joint.

    ``grid`` is (rows, columns) of patches; patch tokens follow the class token row by row. For text,
    ``batch`` counts the texts, ``frames`` is 1 and ``grid`` is (0, 0).
    """

    batch: int
    frames: int
    grid: tuple[int, int]
    layer: int
    tower: Tower
    joint: bool = False


Hook = Callable[[Tensor, ClipContext], Tensor]


def run_block(block: Any, x: Tensor, mask: Tensor | None, hooks: Hooks, context: ClipContext) -> Tensor:
    """Run the parts of a frozen open_clip block in the block's order, with hooks at their sites."""

    def apply(site: Site, value: Tensor) -> Tensor:
        for hook in hooks.get(site, ()):
            value = hook(value, context)
        return value

    def add_parallel(site: Site, source: Tensor, total: Tensor) -> Tensor:
        for hook in hooks.get(site, ()):
            total = total + hook(source, context)
        return total

    x = apply("tokens", x)
    normed = block.ln_1(x)
    weight = apply("qkv_weight", block.attn.in_proj_weight) if "qkv_weight" in hooks else None
    attended = apply("post_attn", attention(block, normed, mask, weight))
    u = add_parallel("parallel_attn", x, x + block.ls_1(attended))
    u = apply("pre_mlp", u)
    normed_u = block.ln_2(u)
    out = add_parallel("parallel_mlp", u, u + block.ls_2(block.mlp(normed_u)))
    out = add_parallel("parallel_mlp_ln", normed_u, out)
    out = add_parallel("parallel_block", x, out)
    return add_parallel("parallel_block_ln", normed, out)


def attention(block: Any, x: Tensor, mask: Tensor | None = None, qkv_weight: Tensor | None = None) -> Tensor:
    """Return a block's self-attention of normed tokens (B,N,D).

    Args:
        block: an open_clip block.
        x: its normed input.
        mask: None, or the causal mask.
        qkv_weight: replaces the block's packed query, key and value weight (3D,D), unless None.
    """
    # Without a graph, this is the block's own call. With one, a fused kernel: nn.MultiheadAttention turns its input
    # token-first, and multiplying that by *frozen* weights takes N small products, where trainable weights get one
    # large product (a third of a training step on a CPU).
    if not x.requires_grad and qkv_weight is None:
        plain: Tensor = block.attention(x.contiguous(), attn_mask=mask)
        return plain
    attn = block.attn
    packed = functional.linear(x, attn.in_proj_weight if qkv_weight is None else qkv_weight, attn.in_proj_bias)
    query, key, value = rearrange(packed, "b n (part h d) -> part b h n d", part=3, h=attn.num_heads)
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=mask is not None)
    out: Tensor = attn.out_proj(rearrange(mixed, "b h n d -> b n (h d)"))
    return out
