"""Views of image towers that are timm's ``Eva``: EVA-CLIP, EVA02-CLIP and the Perception Encoder (PE-Core)."""

# Shapes: B clip, T frame, P patch, R token before the patches, N sequence, n token, D width, h head, d width of a head.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.families.timm_vit import TimmVideo
from vlmodels.families.views import BlockView, Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlmodels.clip_context import ClipContext


class Block(BlockView):
    """timm's ``EvaBlock``, or its ``EvaBlockPostNorm`` (EVA02-E).

    Queries and keys of the patches are rotated by their places. The tokens before the patches are not, nor are those
    that methods appended after them: they have no place.
    """

    def __init__(self, module: Any, *, norms_after: bool) -> None:
        norm1, norm2 = (nn.Identity(), nn.Identity()) if norms_after else (module.norm1, module.norm2)
        super().__init__(module, norm1, norm2, module.attn.num_heads)
        self._block, self._norms_after = module, norms_after

    def whole(self, x: Tensor, call: Call) -> Tensor | None:
        """Return the block's output (N,n,D); None if tokens were appended, which timm would rotate."""
        if call.rotation is not None and x.shape[1] != self._block.attn.num_prefix_tokens + call.rotation.shape[-2]:
            return None
        out: Tensor = self._block(x, rope=call.rotation)
        return out

    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output for normed tokens."""
        out: Tensor = self._block.mlp(x)
        return out

    def scale1(self, x: Tensor) -> Tensor:
        """Return the attention's output: scaled, normed, or as it is."""
        return self._scaled(x, self._block.norm1 if self._norms_after else self._block.gamma_1)

    def scale2(self, x: Tensor) -> Tensor:
        """Return the MLP's output: scaled, normed, or as it is."""
        return self._scaled(x, self._block.norm2 if self._norms_after else self._block.gamma_2)

    def _scaled(self, x: Tensor, scale: nn.Module | Tensor | None) -> Tensor:
        if scale is None:
            return x
        out: Tensor = scale(x) if isinstance(scale, nn.Module) else scale * x
        return out

    @property
    def qkv(self) -> tuple[nn.Parameter, ...]:
        """The packed weight (3D,D), or those of queries, keys and values (D,D)."""
        attn = self._block.attn
        if attn.qkv is not None:
            return (attn.qkv.weight,)
        return attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight

    def project(self, x: Tensor, call: Call, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (N,h,n,d) of normed tokens (N,n,D); without a rotation, none are rotated."""
        attn = self._block.attn
        if attn.qkv is not None:
            packed = functional.linear(x, attn.qkv.weight if weight is None else weight, self._packed_bias())
            query, key, value = packed.chunk(3, dim=-1)
        else:
            parts = (attn.q_proj, attn.k_proj, attn.v_proj)
            weights = [part.weight for part in parts] if weight is None else weight.chunk(3)
            query, key, value = (functional.linear(x, w, p.bias) for p, w in zip(parts, weights, strict=True))
        query, key, value = (rearrange(t, "b n (h d) -> b h n d", h=self.heads) for t in (query, key, value))
        query, key = attn.q_norm(query), attn.k_norm(key)
        return self._rotated(query, call).type_as(value), self._rotated(key, call).type_as(value), value

    def _packed_bias(self) -> Tensor | None:
        """Return the bias (3D) of queries, keys and values; EVA keeps it in parts, without one of the keys."""
        attn = self._block.attn
        if getattr(attn, "q_bias", None) is not None:
            return torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        bias: Tensor | None = attn.qkv.bias
        return bias

    def _rotated(self, x: Tensor, call: Call) -> Tensor:
        """Rotate the patches of queries or keys (N,h,n,d)."""
        if call.rotation is None:
            return x
        from timm.layers.pos_embed_sincos import apply_rot_embed_cat  # late: other families do without timm

        start = self._block.attn.num_prefix_tokens
        end = start + call.rotation.shape[-2]
        half = getattr(self._block.attn, "rotate_half", False)
        turned: Tensor = apply_rot_embed_cat(x[:, :, start:end], call.rotation, half=half)
        return torch.cat([x[:, :, :start], turned, x[:, :, end:]], dim=2)

    def output(self, mixed: Tensor) -> Tensor:
        """Return the attention's output for the heads' mixed values (N,n,D)."""
        attn = self._block.attn
        out: Tensor = attn.proj(attn.norm(mixed))
        return out


class Video(TimmVideo):
    """timm's ``Eva``: rotary positions, and a class token or none."""

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        norms_after = type(self._trunk.blocks[0]).__name__ == "EvaBlockPostNorm"
        self.blocks = [Block(block, norms_after=norms_after) for block in self._trunk.blocks]

    def embed(self, images: Tensor, context: ClipContext, hook: Callable[[Tensor], Tensor]) -> tuple[Tensor, Call]:  # noqa: ARG002 - every family's
        """Return the first block's input (N,R+P,D), and the rotations of its patches."""
        trunk = self._trunk
        patches = trunk.patch_embed(images.to(self.below[0].dtype))
        x, rotation = trunk._pos_embed(patches)  # noqa: SLF001 - no public form
        return trunk.norm_pre(hook(x)), Call(rotation=rotation)
