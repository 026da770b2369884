"""LoRA, a baseline of the MSTA paper: low-rank updates of the attention's query and value projections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from vlmodels.clip_context import Tower
from vlmodels.layers import LayerRange, text_layers_rules, tower_ranges
from vlmodels.methods.base import Method, Preset, setting
from vlmodels.methods.msta import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vlmodels.clip_context import ClipContext


class LoRA(Method):
    """``W + (alpha / r) B A`` in place of W, for each of the chosen projections; B starts at zero.

    Trainable parameters: ``2 D r`` per projection and layer, for width D and r = rank; 9,437,184 on ViT-B/16
    with the defaults (the published 9.4 M, from which rank and places are inferred).
    """

    paper: ClassVar[str] = "Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022"
    temporal: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """Size and place of the updates."""

        layers: str = setting(
            "all", "blocks with updates: a range such as 8-12, or all", {"layers": "both"}, apart={"layers": "video"}
        )
        text_layers: str = setting(
            "", "layers of the text tower if both get updates; empty: as layers", apart={"layers": "text"}
        )
        towers: Literal["video", "text", "both"] = setting(
            "video", "towers that get updates", {"choice": ("video", "text", "both")}
        )
        targets: Literal["q,v", "q,k,v"] = setting("q,v", "projections of queries, keys and values that are updated")
        rank: int = setting(256, "rank of an update", {"choice": (16, 64, 256)})
        alpha: float = setting(0.0, "an update's weight times its rank; 0: the rank", {"choice": (0.0, 16.0)})

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            return [
                *super().rules(),
                LayerRange.rule(self.layers),
                *text_layers_rules(self.text_layers, "towers", self.towers),
                (self.rank >= 1, f"rank={self.rank} must be at least 1"),
                (self.alpha >= 0, f"alpha={self.alpha} must not be negative"),
            ]

    config: Config

    # the MSTA paper states no recipe for this baseline, so it is MSTA's
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(method, recipe) for method in [Config()] for name, recipe in RECIPES.items()
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Add an update to the attention of each chosen block."""
        config, spec = self.config, self.backbone.spec
        self.video_update, self.text_update = nn.ModuleDict(), nn.ModuleDict()
        towers = [tower for tower in get_args(Tower) if config.towers in ("both", tower)]
        for tower, layers in tower_ranges(spec, towers, config.layers, config.text_layers).items():
            updates = self.video_update if tower == "video" else self.text_update
            for layer in layers:
                updates[str(layer)] = update = LowRank(spec.width(tower), config)
                self.backbone.add(tower, layer, "qkv_weight", update)
        return self.video_update, self.text_update

    def merged(self) -> dict[str, Tensor]:
        """Return the attention weights with their updates."""
        names = {id(tensor): name for name, tensor in self.backbone.model.named_parameters()}
        found: dict[str, Tensor] = {}
        for tower, updates in zip(get_args(Tower), (self.video_update, self.text_update), strict=True):
            for layer, update in updates.items():
                assert isinstance(update, LowRank)
                block = self.backbone.block(tower, int(layer))
                parts = update.updated(block.qkv_weight).chunk(len(block.qkv))
                found |= {names[id(weight)]: part for weight, part in zip(block.qkv, parts, strict=True)}
        return found


class LowRank(nn.Module):
    """Updates of the parts of a packed query, key and value weight.

    They are merged at every call: at these ranks that costs less than two thin products for every token. We do not use
    peft, which updates all three parts of a packed projection together, and the output projection as well.
    """

    def __init__(self, width: int, config: LoRA.Config) -> None:
        super().__init__()
        targets, rank = config.targets.split(","), config.rank
        self.scale = (config.alpha or rank) / rank
        self.down = nn.ParameterDict({name: nn.Parameter(torch.empty(rank, width)) for name in targets})
        self.up = nn.ParameterDict({name: nn.Parameter(torch.zeros(width, rank)) for name in targets})
        for down in self.down.values():
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def forward(self, weight: Tensor, context: ClipContext) -> Tensor:  # noqa: ARG002 - every hook gets its context
        """Return the packed weight (3D,D) with its updates."""
        return self.updated(weight)

    def updated(self, weight: Tensor) -> Tensor:
        """Return the packed weight (3D,D) with its updates."""
        return torch.cat(
            [
                part + self.scale * (self.up[name] @ self.down[name]) if name in self.down else part
                for name, part in zip("qkv", weight.chunk(3), strict=True)
            ]
        )
