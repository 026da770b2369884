"""The sites of a block at which a method may act, and a block run by its own parts with hooks between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

Tower = Literal["video", "text"]

Site = Literal[
    "embed",  # layer 0. video: patches + class + positions, before ln_pre; text: words, before positions
    "tokens",  # the block's input; may change the number of tokens
    "qkv_weight",  # gets the packed query, key and value weight (3D,D); its output is used instead
    "parallel_attn",  # gets the block's input; its output is added beside the attention
    "post_attn",  # the attention's output, before the residual sum
    "pre_mlp",  # the residual stream between attention and MLP
    "parallel_mlp",  # gets that stream; its output is added beside the MLP
    "parallel_mlp_ln",  # the same, but gets ln_2 of that stream
    "parallel_block",  # gets the block's input; its output is added after the whole block
    "parallel_block_ln",  # the same, but gets ln_1 of the block's input, which the block computes anyway
]

Hooks = dict[str, list["Hook"]]


@dataclass(frozen=True, slots=True)
class ClipContext:
    """What a hook knows about the tokens it gets: ``(batch * frames, N, D)``, or ``(batch, N, D)`` if joint.

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
    """One frozen open_clip block, its parts in its own order, with hooks at their sites."""

    def through(site: Site, value: Tensor) -> Tensor:
        for hook in hooks.get(site, ()):
            value = hook(value, context)
        return value

    def beside(site: Site, source: Tensor, total: Tensor) -> Tensor:
        for hook in hooks.get(site, ()):
            total = total + hook(source, context)
        return total

    x = through("tokens", x)
    normed = block.ln_1(x)
    weight = through("qkv_weight", block.attn.in_proj_weight) if "qkv_weight" in hooks else None
    attended = through("post_attn", attention(block, normed, mask, weight))
    u = beside("parallel_attn", x, x + block.ls_1(attended))
    u = through("pre_mlp", u)
    normed_u = block.ln_2(u)
    out = beside("parallel_mlp", u, u + block.ls_2(block.mlp(normed_u)))
    out = beside("parallel_mlp_ln", normed_u, out)
    out = beside("parallel_block", x, out)
    return beside("parallel_block_ln", normed, out)


def attention(block: Any, x: Tensor, mask: Tensor | None = None, qkv_weight: Tensor | None = None) -> Tensor:
    """The block's self-attention of normed tokens (B,N,D).

    Args:
        block: an open_clip block.
        x: its normed input.
        mask: None or the causal one.
        qkv_weight: to be used instead of the block's own packed query, key and value weight.

    Without a graph it is the block's own call, to the last bit. With one, the same weights go through one fused
    kernel: ``nn.MultiheadAttention`` turns its input token-first, and multiplying that by *frozen* weights falls
    back to N small products where trainable weights get one large one (a third of a training step on a CPU).
    """
    if not x.requires_grad and qkv_weight is None:
        plain: Tensor = block.attention(x, attn_mask=mask)
        return plain
    attn = block.attn
    packed = functional.linear(x, attn.in_proj_weight if qkv_weight is None else qkv_weight, attn.in_proj_bias)
    heads = packed.reshape(*x.shape[:2], 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    query, key, value = heads.unbind(0)
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=mask is not None)
    out: Tensor = attn.out_proj(mixed.transpose(1, 2).flatten(2))
    return out
