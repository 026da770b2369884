"""Views of frozen towers: the same names for the parts of every family, on which sites and methods act."""

# Shapes: N sequence, n token, R token before the patches, D width of a tower, h head, d width of a head, C text,
# L text token, E width of the joint space.

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vlmodels.clip_context import ClipContext


@dataclass(frozen=True, slots=True)
class Call:
    """What the blocks of a tower need besides the tokens."""

    mask: Tensor | None = None  # (L,L): the causal mask of a text tower
    rotation: Tensor | None = None  # (P,2d): sines and cosines that rotate the patches' queries and keys


class BlockView(ABC):
    """A frozen block: ``u = x + scale1(attention(norm1(x)))``, then ``u + scale2(mlp(norm2(u)))``.

    A block that norms after its parts (EVA02-E) has no norm before them: ``norm1`` and ``norm2`` are then identities,
    and its norms are the scales.

    Args:
        module: the block itself.
        norm1: norm before its attention.
        norm2: norm before its MLP.
        heads: number of heads of its attention.
    """

    def __init__(self, module: nn.Module, norm1: nn.Module, norm2: nn.Module, heads: int) -> None:
        self.module, self.norm1, self.norm2, self.heads = module, norm1, norm2, heads

    @abstractmethod
    def whole(self, x: Tensor, call: Call) -> Tensor | None:
        """Return the block's own output for tokens (N,n,D); None where it must be run by its parts."""

    @abstractmethod
    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output for normed tokens."""

    @abstractmethod
    def scale1(self, x: Tensor) -> Tensor:
        """Return the attention's output (N,n,D) as it is added to the residual stream."""

    @abstractmethod
    def scale2(self, x: Tensor) -> Tensor:
        """Return the MLP's output (N,n,D) as it is added to the residual stream."""

    @property
    @abstractmethod
    def qkv(self) -> tuple[nn.Parameter, ...]:
        """The weights of queries, keys and values: one (3D,D), or three (D,D)."""

    @property
    def qkv_weight(self) -> Tensor:
        """The weights of queries, keys and values, one below the other (3D,D)."""
        return self.qkv[0] if len(self.qkv) == 1 else torch.cat(self.qkv)

    @abstractmethod
    def project(self, x: Tensor, call: Call, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (N,h,n,d) of normed tokens; ``weight`` (3D,D) replaces ``qkv_weight``."""

    @abstractmethod
    def output(self, mixed: Tensor) -> Tensor:
        """Return the attention's output for the heads' mixed values (N,n,D)."""

    def attention(self, x: Tensor, call: Call, weight: Tensor | None = None) -> Tensor:
        """Return the self-attention (N,n,D) of normed tokens; ``weight`` (3D,D) replaces ``qkv_weight``."""
        query, key, value = self.project(x, call, weight)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=call.mask is not None)
        return self.output(rearrange(mixed, "n h token d -> n token (h d)"))


class VideoView(ABC):
    """A frozen image tower, run frame by frame (or on all frames at once, ``joint``).

    **The class token** of papers is read by one rule in every family. What a paper does *to* it is done to the
    ``prefix`` tokens before the patches, so to none where a tower has none. Where a paper *reads* it, the pooled token
    is read (``pool``): the normed class token, or, in towers that pool by a map or a mean, what these make of the
    tokens.

    Attributes:
        blocks: the blocks.
        prefix: R, the number of tokens before the patches.
        width: D.
        embed_dim: E.
        image_size: rows and columns of pixels.
        grid: rows and columns of patches.
        norm: the norm after the last block; after the pooling, in towers that have it only there.
        reads_class_token: whether ``pool`` is ``norm`` of the class token alone.
        joint: whether all frames of a clip are one sequence.
        below: parameters that act before the first block.
    """

    blocks: Sequence[BlockView]
    prefix: int
    width: int
    embed_dim: int
    image_size: tuple[int, int]
    grid: tuple[int, int]
    norm: nn.Module
    reads_class_token: bool
    joint: bool = False
    below: Sequence[nn.Parameter]

    @abstractmethod
    def embed(self, images: Tensor, context: ClipContext, hook: Callable[[Tensor], Tensor]) -> tuple[Tensor, Call]:
        """Return the first block's input (N,n,D) for images (B*T,3,H,W), and what all blocks need besides.

        ``hook`` gets the tokens with their positions, before the norm that some towers have here.
        """

    @abstractmethod
    def pool(self, x: Tensor) -> Tensor:
        """Return the pooled token (N,D), normed, of the last block's output for the tower's own tokens (N,R+P,D)."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Return features (...,E) in the joint space of normed tokens (...,D)."""


class TextView(ABC):
    """A frozen text tower.

    Attributes:
        blocks: the blocks; empty where the tower can only be run as a whole.
        layers: number of blocks.
        width: D.
        heads: number of heads of a block.
        context_length: number of tokens of a text; 0 where the tokenizer alone decides.
        norm: the norm after the last block.
        may_cut: whether nothing after the token that stands for a text matters to it.
        words: the table of token embeddings.
        below: parameters that act before the first block.
        head: parameters that act after the last block.
        whole_only: why methods cannot act inside the tower; "" if they can.
    """

    blocks: Sequence[BlockView]
    layers: int
    width: int
    heads: int
    context_length: int
    norm: nn.Module
    may_cut: bool
    words: nn.Parameter
    below: Sequence[nn.Parameter]
    head: Sequence[nn.Parameter]
    whole_only: str = ""

    @abstractmethod
    def embed(self, tokens: Tensor, hook: Callable[[Tensor], Tensor]) -> tuple[Tensor, Call]:
        """Return the first block's input (C,L,D) for token ids (C,L), and what all blocks need besides.

        ``hook`` gets the words' embeddings, before positions are added.
        """

    @abstractmethod
    def call(self, length: int) -> Call:
        """Return what the blocks need besides texts of ``length`` tokens."""

    @abstractmethod
    def ends(self, tokens: Tensor) -> Tensor:
        """Return the place (C,) of the token that stands for each text (C,L)."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Return features (C,E) of normed tokens (C,D)."""

    def whole(self, tokens: Tensor) -> Tensor:
        """Return features (C,E) of token ids (C,L) by the tower's own call, where ``whole_only`` says why."""
        raise NotImplementedError


def linear_or_matrix(projection: Any, x: Tensor) -> Tensor:
    """Return ``x`` (...,D) projected by a linear layer, a matrix (D,E), or None, which leaves it as it is."""
    if projection is None:
        return x
    projected: Tensor = projection(x) if isinstance(projection, nn.Module) else x @ projection
    return projected


def parameters_of(projection: Any) -> list[nn.Parameter]:
    """Return the parameters of a linear layer, a matrix or None."""
    if projection is None:
        return []
    return [projection] if isinstance(projection, nn.Parameter) else list(projection.parameters())
