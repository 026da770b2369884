"""Views of open_clip's own towers: CLIP's, CLIPA's, ViCLIP's joint one, and the text towers of nearly all models."""

# Shapes: B clip, T frame, P patch, N sequence, n token, D width, C text, L text token, h head, d width of a head.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.families.views import BlockView, Call, TextView, VideoView, linear_or_matrix, parameters_of
from vlmodels.layout import joint_sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlmodels.clip_context import ClipContext


class Block(BlockView):
    """open_clip's ``ResidualAttentionBlock``."""

    def __init__(self, module: Any) -> None:
        super().__init__(module, module.ln_1, module.ln_2, module.attn.num_heads)
        self._block = module

    def whole(self, x: Tensor, call: Call) -> Tensor:
        """Return the block's output (N,n,D)."""
        out: Tensor = self._block(x, attn_mask=call.mask)
        return out

    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output for normed tokens."""
        out: Tensor = self._block.mlp(x)
        return out

    def scale1(self, x: Tensor) -> Tensor:
        """Return the attention's output, scaled where the block has layer scales."""
        scaled: Tensor = self._block.ls_1(x)
        return scaled

    def scale2(self, x: Tensor) -> Tensor:
        """Return the MLP's output, scaled where the block has layer scales."""
        scaled: Tensor = self._block.ls_2(x)
        return scaled

    @property
    def qkv(self) -> tuple[nn.Parameter, ...]:
        """The packed weight (3D,D)."""
        return (self._block.attn.in_proj_weight,)

    def project(self, x: Tensor, call: Call, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002 - every family's
        """Return queries, keys and values (N,h,n,d) of normed tokens (N,n,D)."""
        attn = self._block.attn
        packed = functional.linear(x, attn.in_proj_weight if weight is None else weight, attn.in_proj_bias)
        query, key, value = rearrange(packed, "b n (part h d) -> part b h n d", part=3, h=self.heads)
        return query, key, value

    def output(self, mixed: Tensor) -> Tensor:
        """Return the attention's output for the heads' mixed values (N,n,D)."""
        out: Tensor = self._block.attn.out_proj(mixed)
        return out

    def attention(self, x: Tensor, call: Call, weight: Tensor | None = None) -> Tensor:
        """Return the self-attention (N,n,D) of normed tokens.

        Without a graph, this is the block's own call. With one, a fused kernel: nn.MultiheadAttention turns its input
        token-first, and multiplying that by *frozen* weights takes N small products, where trainable weights get one
        large product (a third of a training step on a CPU).
        """
        if x.requires_grad or weight is not None:
            return super().attention(x, call, weight)
        plain: Tensor = self._block.attention(x.contiguous(), attn_mask=call.mask)
        return plain

    def attend(self, x: Tensor, source: Tensor) -> Tensor:
        """Return the attention (N,n,D) of normed tokens to other normed tokens (N,m,D)."""
        out: Tensor = self._block.attention(x, source, source)
        return out


class Video(VideoView):
    """open_clip's ``VisionTransformer``: a class token, pooled by it or (CLIPA) by the mean of the patches."""

    prefix = 1

    def __init__(self, visual: Any) -> None:
        self._visual = visual
        self.blocks = [Block(block) for block in visual.transformer.resblocks]
        self.width, self.embed_dim = visual.transformer.width, visual.output_dim
        self.image_size = tuple(visual.image_size)
        self.grid = tuple(visual.grid_size)
        self.norm = visual.ln_post
        self.reads_class_token = visual.pool_type == "tok"
        self.joint = hasattr(visual, "temporal_positional_embedding")
        self.below = [visual.positional_embedding, visual.class_embedding]
        self.below += [*visual.conv1.parameters(), *visual.ln_pre.parameters()]
        self.below += [visual.temporal_positional_embedding] if self.joint else []

    def embed(self, images: Tensor, context: ClipContext, hook: Callable[[Tensor], Tensor]) -> tuple[Tensor, Call]:
        """Return the first block's input; see ``layout`` for the order of a joint tower's tokens."""
        visual = self._visual
        patches = visual.conv1(images.to(visual.conv1.weight.dtype))
        x: Tensor = rearrange(patches, "n d row col -> n (row col) d")
        if self.joint:
            x = joint_sequence(visual, x, context)
        else:
            cls = repeat(visual.class_embedding.to(x.dtype), "d -> n 1 d", n=x.shape[0])
            x = torch.cat([cls, x], dim=1)
            x = x + visual.positional_embedding.to(x.dtype)
        normed: Tensor = visual.ln_pre(hook(x))
        return normed, Call()

    def pool(self, x: Tensor) -> Tensor:
        """Return the normed class token, or the patches' mean, normed before or after it."""
        visual = self._visual
        if self.reads_class_token:
            token: Tensor = visual.ln_post(x[:, 0])
            return token
        if visual.final_ln_after_pool:
            mean: Tensor = visual.ln_post(reduce(x[:, 1:], "n token d -> n d", "mean"))
            return mean
        tokens: Tensor = visual.ln_post(x)
        return reduce(tokens[:, 1:], "n token d -> n d", "mean")

    def project(self, x: Tensor) -> Tensor:
        """Return features (...,E) of normed tokens (...,D)."""
        return linear_or_matrix(self._visual.proj, x)


class Text(TextView):
    """open_clip's ``TextTransformer``, or the text half of its ``CLIP``.

    It is causal or bidirectional, and the token that stands for a text is the end token (by the largest id, or by the
    tokenizer's own id) or the last of the context.
    """

    def __init__(self, text: Any) -> None:
        self._text = text
        self.blocks = [Block(block) for block in text.transformer.resblocks]
        self.layers = len(self.blocks)
        self.width, self.heads = text.transformer.width, self.blocks[0].heads
        self.context_length = text.context_length
        self.norm = text.ln_final
        self.words = text.token_embedding.weight
        self.pool_type = str(getattr(text, "text_pool_type", getattr(text, "pool_type", "")))
        self.may_cut = text.attn_mask is not None and self.pool_type != "last"
        self.below = [text.positional_embedding, self.words]
        self.head = [*text.ln_final.parameters(), *parameters_of(text.text_projection)]

    def embed(self, tokens: Tensor, hook: Callable[[Tensor], Tensor]) -> tuple[Tensor, Call]:
        """Return the first block's input (C,L,D)."""
        x = hook(self._text.token_embedding(tokens))
        positions: Tensor = self._text.positional_embedding[: x.shape[1]]
        return x + positions.to(x.dtype), self.call(x.shape[1])

    def call(self, length: int) -> Call:
        """Return the causal mask of ``length`` tokens, or none."""
        mask = self._text.attn_mask
        return Call(mask=None if mask is None else mask[:length, :length])

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the place (C,) of the token that stands for each text."""
        if self.pool_type == "last":
            return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
        if self.pool_type == "eos":
            return (tokens == self._eos).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)

    @property
    def _eos(self) -> int:
        eos: int = getattr(self._text, "text_eos_id", getattr(self._text, "eos_id", 2))
        return eos

    def project(self, x: Tensor) -> Tensor:
        """Return features (C,E) of normed tokens (C,D)."""
        return linear_or_matrix(self._text.text_projection, x)
