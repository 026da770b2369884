"""AIM: the frozen attention reused along time, with adapters after both attentions and parallel to the MLP."""

# Shapes: B clip, T frame (F: 1 for the class token of a joint tower), N token of a frame, D width.

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.errors import noted, refuse
from vlmodels.families.views import Call
from vlmodels.heads import ClassHead, class_token_output, untrained_texts
from vlmodels.layers import LayerRange
from vlmodels.layout import Tokens, join_tokens, split_tokens, temporal_positions
from vlmodels.methods.base import Method, Output, Preset, Recipe, setting
from vlmodels.methods.msta import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vlmodels.clip_context import ClipContext
    from vlmodels.families.views import BlockView


class AIM(Method):
    """Adapters for time, for space and parallel to the MLP; T-MSA and S-MSA are the same frozen attention.

    ``x' = x + A_t(T-MSA(norm1(x)))``, ``u = x' + y + A_s(y)`` with ``y = S-MSA(norm1(x'))``, and
    ``out = u + MLP(norm2(u)) + scale * A_m(norm2(u))``.

    A temporal embedding (T,D), zero at the start, is added to all tokens of a frame. Trainable parameters:
    ``3 (2 D h + h + D)`` per block for width D and h = D / reduction, and ``T D``; 10,657,536 on ViT-B/16 with
    8 frames (the published 11 M). With a classifier, the norm before it trains too (``2 D`` more), as in the released
    code. Up-projections start at zero: step 0 is the frozen backbone. The text tower is frozen.

    The classifier reads the pooled token, which is the class token in CLIP (``VideoView``). T-MSA has the block's norm
    and none of its scales: in towers that norm after their parts (EVA02-E) it reads tokens that are not normed.
    """

    paper: ClassVar[str] = "Yang et al., AIM: Adapting Image Models for Efficient Video Action Recognition, ICLR 2023"
    temporal: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """Size, place and weight of the adapters, and the head."""

        layers: str = setting("all", "blocks with adapters: a range such as 8-12, or all", {"layers": "video"})
        reduction: int = setting(4, "the width divided by an adapter's hidden units", {"choice": (2, 4, 8)})
        scale: float = setting(0.5, "weight of the adapters parallel to the MLP", {"loguniform": (0.1, 1.0)})
        head: Literal["text", "linear"] = setting("text", "what scores: class texts, or a classifier as published")

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            return [
                *super().rules(),
                LayerRange.rule(self.layers),
                (self.reduction >= 1, f"reduction={self.reduction} must be at least 1"),
                (self.scale > 0, f"scale={self.scale} must be above 0"),
            ]

    config: Config

    presets: ClassVar[Mapping[str, Preset]] = {
        # published with a classifier on whole data sets only; the other protocols use MSTA's recipes
        **{name: Preset(method, recipe) for method in [Config()] for name, recipe in RECIPES.items()},
        # the released Kinetics-400 run without its stochastic depth of 0.2; its frames are 16 apart
        "linear_head": Preset(
            Config(head="linear"),
            Recipe(
                lr=3e-4,
                epochs=30,
                batch_size=64,
                warmup_epochs=2.5,
                min_lr_ratio=0.0,
                weight_decay=0.05,
                beta2=0.999,
                jitter=0.0,
                gray=0.0,
            ),
        ),
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Add the temporal embedding and three adapters for each chosen block, and build the classifier."""
        config, backbone, spec = self.config, self.backbone, self.backbone.spec
        width, hidden = spec.video_width, spec.video_width // config.reduction
        layers, problems = range(0), list[str]()
        with noted(problems):
            layers = LayerRange.parse(config.layers).within(spec.video_layers, f"the video tower of {spec.name}")
        if hidden < 1:
            problems.append(f"reduction={config.reduction} is above the width of {spec.name}, {width}")
        refuse(problems)
        self.embedding = TemporalEmbedding(spec.frames, width)
        self.t_adapter, self.s_adapter, self.mlp_adapter = (nn.ModuleDict() for _ in range(3))
        backbone.add("video", 0, "embed", self.embedding)
        for layer in layers:
            self.t_adapter[str(layer)] = temporal = Adapter(width, hidden)
            self.s_adapter[str(layer)] = spatial = Adapter(width, hidden, skip=True)
            self.mlp_adapter[str(layer)] = parallel = Adapter(width, hidden, scale=config.scale)
            backbone.add("video", layer, "tokens", TemporalAttention(backbone.block("video", layer), temporal))
            backbone.add("video", layer, "post_attn", spatial)
            backbone.add("video", layer, "parallel_mlp_ln", parallel)
        learned = [self.embedding, self.t_adapter, self.s_adapter, self.mlp_adapter]
        self.head: ClassHead | None = None
        if config.head == "linear":
            self.head = ClassHead(width, self.trained_classes, dropout=0.5)
            learned += [backbone.video_norm, self.head]
        return learned

    @property
    def trains_by_cosine(self) -> bool:
        """Whether class texts score in training."""
        return self.head is None

    def search_problems(self) -> list[str]:
        """Return why texts cannot search: with a classifier, the tower learns nothing about texts."""
        return untrained_texts(self.config.head)

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:
        """Score clips (B,T,3,H,W) by class texts, or by the classifier on the mean of the pooled tokens."""
        if self.head is None:
            return super().forward(frames, labels)
        return class_token_output(self, self.head, frames)


class TemporalEmbedding(nn.Module):
    """One learned row (D) per frame, interpolated linearly for other numbers of frames.

    A class token that stands for all frames gets none, as with a joint tower's own temporal positions.
    """

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(frames, width))

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """Return the tokens ``x`` plus the row of their frame."""
        rows = temporal_positions(self.table[None], context.frames).to(x.dtype)
        if not context.joint:
            return x + repeat(rows, "t d -> (b t) 1 d", b=context.batch)
        tokens = split_tokens(x, context)
        return join_tokens(replace(tokens, patches=tokens.patches + rearrange(rows, "t d -> t 1 1 d")), context)


class Adapter(nn.Module):
    """Down, GELU, up; with ``skip`` added to the input, else multiplied by ``scale``."""

    def __init__(self, width: int, hidden: int, *, skip: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.skip, self.scale = skip, scale
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:  # noqa: ARG002 - every hook gets its context
        """Return an output of the same shape as the tokens ``x``."""
        out: Tensor = self.up(functional.gelu(self.down(x)))
        return x + out if self.skip else self.scale * out


class TemporalAttention:
    """A hook that adds the block's attention along time, adapted; it registers no parameters of its own.

    Each token attends to the tokens at its place in the clip's frames.
    """

    def __init__(self, block: BlockView, adapter: Adapter) -> None:
        self.block, self.adapter = block, adapter

    def __call__(self, x: Tensor, context: ClipContext) -> Tensor:
        """Return the video tower's tokens ``x`` plus their adapted attention."""
        tokens = split_tokens(self.block.norm1(x), context)
        _, columns = context.grid
        patches = self._mix(rearrange(tokens.patches, "b t row col d -> b t (row col) d"))
        mixed = Tokens(
            self._mix(tokens.prefix),
            rearrange(patches, "b t (row col) d -> b t row col d", col=columns),
            self._mix(tokens.extra),
        )
        adapted: Tensor = self.adapter(join_tokens(mixed, context), context)
        return x + adapted

    def _mix(self, x: Tensor) -> Tensor:
        """Attend over F for tokens (B,F,N,D).

        A tower that rotates queries and keys by their places rotates none here: all tokens of one place turn alike.
        """
        if x.shape[2] == 0:
            return x
        mixed = self.block.attention(rearrange(x, "b f n d -> (b n) f d"), Call())
        return rearrange(mixed, "(b n) f d -> b f n d", b=x.shape[0])
