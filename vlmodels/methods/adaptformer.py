"""AdaptFormer, a baseline of the MSTA paper: a bottleneck parallel to the MLP of each block, in both towers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from torch import Tensor, nn
from torch.nn import functional

from vlmodels.clip_context import Tower
from vlmodels.layers import LayerRange, text_layers_rules, tower_ranges
from vlmodels.methods.base import Method, Preset, setting
from vlmodels.methods.msta import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vlmodels.clip_context import ClipContext


class AdaptFormer(Method):
    """``out = u + MLP(ln_2(u)) + scale * (Wup relu(Wdown u))``, with u the residual stream after the attention.

    Trainable parameters: ``2 D m + m + D`` per layer of each tower, for width D and m = dims; 7,885,824 on
    ViT-B/16 with 256 (the published 7.9 M). The up-projection starts at zero: step 0 is the frozen backbone.
    """

    paper: ClassVar[str] = (
        "Chen et al., AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition, NeurIPS 2022"
    )
    temporal: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """Size, place and weight of the bottlenecks."""

        layers: str = setting(
            "all",
            "blocks with adapters: a range such as 8-12, or all",
            {"layers": "both"},
            apart={"layers": "video"},
        )
        text_layers: str = setting("", "layers of the text tower; empty: as layers", apart={"layers": "text"})
        dims: int = setting(256, "hidden units of an adapter", {"choice": (64, 128, 256)})
        scale: float = setting(0.1, "weight of the adapters", {"loguniform": (0.01, 1.0)})
        dropout: float = setting(0.1, "dropout of hidden units", {"choice": (0.0, 0.1)})

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            return [
                *super().rules(),
                LayerRange.rule(self.layers),
                *text_layers_rules(self.text_layers),
                (self.dims >= 1, f"dims={self.dims} must be at least 1"),
                (self.scale > 0, f"scale={self.scale} must be above 0"),
                (0 <= self.dropout < 1, f"dropout={self.dropout} must be in [0, 1)"),
            ]

    config: Config

    # the MSTA paper states no recipe for this baseline, so it is MSTA's
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(method, recipe) for method in [Config()] for name, recipe in RECIPES.items()
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Add a bottleneck parallel to each chosen MLP."""
        config, spec = self.config, self.backbone.spec
        self.video_adapter, self.text_adapter = nn.ModuleDict(), nn.ModuleDict()
        layers = tower_ranges(spec, get_args(Tower), config.layers, config.text_layers)
        for layer in layers["video"]:
            self.video_adapter[str(layer)] = video = Bottleneck(spec.video_width, config)
            self.backbone.add("video", layer, "parallel_mlp", video)
        for layer in layers["text"]:
            self.text_adapter[str(layer)] = text = Bottleneck(spec.text_width, config)
            self.backbone.add("text", layer, "parallel_mlp", text)
        return self.video_adapter, self.text_adapter


class Bottleneck(nn.Module):
    """Down, ReLU, dropout, up, scaled."""

    def __init__(self, width: int, config: AdaptFormer.Config) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, config.dims), nn.Linear(config.dims, width)
        self.scale, self.dropout = config.scale, config.dropout
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, context: ClipContext) -> Tensor:  # noqa: ARG002 - every hook gets its context
        """Return the adapter's output, of the same shape as the tokens ``x``."""
        hidden = functional.dropout(functional.relu(self.down(x)), self.dropout, self.training)
        up: Tensor = self.up(hidden)
        return self.scale * up
