"""Views of image towers that are timm's ``VisionTransformer``: SigLIP, SigLIP 2, MobileCLIP-B, ViTamin and others."""

# Shapes: B clip, T frame, P patch, R token before the patches, N sequence, n token, D width, E joint space, h head.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.families.views import BlockView, Call, VideoView

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlmodels.clip_context import ClipContext

_AFTER_THE_BLOCKS = ("norm.", "attn_pool.", "fc_norm.", "head.")


class Block(BlockView):
    """timm's ``Block``."""

    def __init__(self, module: Any) -> None:
        super().__init__(module, module.norm1, module.norm2, module.attn.num_heads)
        self._block = module

    def whole(self, x: Tensor, call: Call) -> Tensor:  # noqa: ARG002 - every family's
        """Return the block's output (N,n,D)."""
        out: Tensor = self._block(x)
        return out

    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output for normed tokens."""
        out: Tensor = self._block.mlp(x)
        return out

    def scale1(self, x: Tensor) -> Tensor:
        """Return the attention's output, scaled where the block has layer scales."""
        scaled: Tensor = self._block.ls1(x)
        return scaled

    def scale2(self, x: Tensor) -> Tensor:
        """Return the MLP's output, scaled where the block has layer scales."""
        scaled: Tensor = self._block.ls2(x)
        return scaled

    @property
    def qkv(self) -> tuple[nn.Parameter, ...]:
        """The packed weight (3D,D)."""
        return (self._block.attn.qkv.weight,)

    def project(self, x: Tensor, call: Call, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002 - every family's
        """Return queries, keys and values (N,h,n,d) of normed tokens (N,n,D)."""
        attn = self._block.attn
        packed = functional.linear(x, attn.qkv.weight if weight is None else weight, attn.qkv.bias)
        query, key, value = rearrange(packed, "b n (part h d) -> part b h n d", part=3, h=self.heads)
        return attn.q_norm(query), attn.k_norm(key), value

    def output(self, mixed: Tensor) -> Tensor:
        """Return the attention's output for the heads' mixed values (N,n,D)."""
        attn = self._block.attn
        out: Tensor = attn.proj(attn.norm(mixed))
        return out


class TimmVideo(VideoView):
    """What all of timm's image towers have in common; open_clip's wrapper adds a projection to some.

    Args:
        visual: open_clip's ``TimmModel``.
    """

    def __init__(self, visual: Any) -> None:
        self._visual, self._trunk = visual, visual.trunk
        trunk = self._trunk
        self.prefix = trunk.num_prefix_tokens
        self.width = self.embed_dim = trunk.embed_dim
        for layer in (*trunk.head.modules(), *visual.head.modules()):
            self.embed_dim = getattr(layer, "out_features", self.embed_dim)
        self.grid = tuple(trunk.patch_embed.grid_size)
        self.image_size = tuple(trunk.patch_embed.img_size)
        self.norm = trunk.fc_norm if isinstance(trunk.norm, nn.Identity) else trunk.norm
        self.reads_class_token = trunk.attn_pool is None and trunk.global_pool == "token"
        after = ("blocks.", *_AFTER_THE_BLOCKS)
        self.below = [p for name, p in trunk.named_parameters() if not name.startswith(after)]

    def pool(self, x: Tensor) -> Tensor:
        """Return the pooled token (N,D): the class token, a map's or the mean, with the norms around it."""
        trunk = self._trunk
        pooled: Tensor = trunk.fc_norm(trunk.pool(trunk.norm(x)))
        return pooled

    def project(self, x: Tensor) -> Tensor:
        """Return features (...,E) of normed tokens (...,D)."""
        projected: Tensor = self._visual.head(self._trunk.head(x))
        return projected


class Video(TimmVideo):
    """timm's ``VisionTransformer``, with patches of its own or of a convolutional stem."""

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.blocks = [Block(block) for block in self._trunk.blocks]

    def embed(self, images: Tensor, context: ClipContext, hook: Callable[[Tensor], Tensor]) -> tuple[Tensor, Call]:  # noqa: ARG002 - every family's
        """Return the first block's input (N,R+P,D)."""
        trunk = self._trunk
        x = trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images.to(self.below[0].dtype))))  # noqa: SLF001 - no public form
        return trunk.norm_pre(hook(x)), Call()
