"""ST-Adapter: bottlenecks with a convolution over time, before the attention of each video block."""

# Shapes: B clip, T frame, ROW COL place of a patch, D width, m = dims.

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from vlmodels.heads import ClassHead, head_output, untrained_texts
from vlmodels.layers import LayerRange
from vlmodels.layout import join_tokens, split_tokens
from vlmodels.methods.base import Method, Output, Preset, Recipe, setting
from vlmodels.methods.msta import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vlmodels.clip_context import ClipContext
    from vlmodels.sites import Site

PLACES: Mapping[str, tuple[Site, ...]] = {
    "attention": ("tokens",),
    "mlp": ("pre_mlp",),
    "both": ("tokens", "pre_mlp"),
}


RELEASED = Recipe(  # the released Kinetics-400 run; M2-CLIP's release, built on it, differs in rate and batch
    lr=7.5e-4,
    epochs=12,
    batch_size=192,
    warmup_epochs=2,
    min_lr_ratio=0.0,
    schedule="restarted",
    weight_decay=0.01,
    no_decay="biases",
    beta2=0.999,
    crop="short_side",
    jitter=0.0,
    gray=0.0,
)


class STAdapter(Method):
    """``x + Wup DWConv3D(Wdown x)`` on the patches; class tokens do not change.

    The paper's activation is the identity, as in the released code. Trainable parameters: ``2 D m + 5 m + D``
    per adapter, for width D and m = dims; 7,110,144 on ViT-B/16 with one adapter per block (the published 7 M).
    The convolution starts at zero: step 0 is the frozen backbone. The text tower is frozen. Before the MLP, the last
    block's adapter does not reach the output of per-frame CLIP, which reads the class token; the counts include it.
    """

    paper: ClassVar[str] = "Pan et al., ST-Adapter: Parameter-Efficient Image-to-Video Transfer Learning, NeurIPS 2022"
    temporal: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """Size and place of the adapters, and the head."""

        layers: str = setting("all", "blocks with adapters: a range such as 8-12, or all", {"layers": "video"})
        dims: int = setting(384, "hidden units of an adapter", {"choice": (64, 128, 384)})
        places: Literal["attention", "mlp", "both"] = setting(
            "attention", "the part of a block that an adapter comes before", {"choice": ("attention", "mlp", "both")}
        )
        head: Literal["text", "linear"] = setting("text", "what scores: class texts, or a classifier as published")

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            return [
                *super().rules(),
                LayerRange.rule(self.layers),
                (self.dims >= 1, f"dims={self.dims} must be at least 1"),
            ]

    config: Config

    presets: ClassVar[Mapping[str, Preset]] = {
        # published with a classifier on whole data sets only; the other protocols use MSTA's recipes
        **{name: Preset(method, recipe) for method in [Config()] for name, recipe in RECIPES.items()},
        # the released Kinetics-400 run, with adapters before the MLP; its frames are 16 apart
        "linear_head": Preset(
            Config(head="linear", places="mlp"),
            RELEASED,
        ),
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Add the adapters to each chosen block, and build the classifier if there is one."""
        config, spec = self.config, self.backbone.spec
        self.adapter = nn.ModuleDict()
        layers = LayerRange.parse(config.layers).within(spec.video_layers, f"the video tower of {spec.name}")
        for layer in layers:
            for site in PLACES[config.places]:
                self.adapter[f"{layer}_{site}"] = adapter = Bottleneck(spec.video_width, config.dims)
                self.backbone.add("video", layer, site, adapter)
        self.head: ClassHead | None = None
        if config.head == "text":
            return (self.adapter,)
        self.head = ClassHead(spec.video_width, self.trained_classes, dropout=0.5)
        return self.adapter, self.head

    @property
    def trains_by_cosine(self) -> bool:
        """Whether class texts score in training."""
        return self.head is None

    def search_problems(self) -> list[str]:
        """Return why texts cannot search: with a classifier, the tower learns nothing about texts."""
        return untrained_texts(self.config.head)

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:
        """Score clips (B,T,3,H,W) by class texts, or by the classifier on the clip's one token (``mean_token``)."""
        if self.head is None:
            return super().forward(frames, labels)
        features = self.backbone.encode_video(frames)
        return head_output(self, self.head, features, features.mean_token)


class Bottleneck(nn.Module):
    """Down, depthwise convolution over the frames t-1, t, t+1 of each patch (zeros beyond the ends), up."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dims), nn.Linear(dims, width)
        self.conv = nn.Conv3d(dims, dims, kernel_size=(3, 1, 1), padding=(1, 0, 0), groups=dims)
        for zero in (self.conv.weight, self.conv.bias, self.down.bias, self.up.bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:
        """Return the video tower's tokens ``x``, each patch plus its adapter's output."""
        tokens = split_tokens(x, context)
        volume = rearrange(self.down(tokens.patches), "b t row col m -> b m t row col")
        out = self.up(rearrange(self.conv(volume), "b m t row col -> b t row col m"))
        return join_tokens(replace(tokens, patches=tokens.patches + out), context)
