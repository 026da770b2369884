"""Fine-tuning of the backbone itself: both towers (ViFi-CLIP), or one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from vlmodels.methods.base import Method, Preset, Recipe, setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

# ViFi-CLIP's released settings; they train both towers on Kinetics-400 at 2.2e-5
FEWSHOT = Recipe(
    lr=2e-6, epochs=50, batch_size=64, frames=32, label_smoothing=0.1, mixup=0.8, cutmix=1.0, crop="multiscale"
)
KINETICS = replace(FEWSHOT, lr=8e-6, epochs=30, batch_size=256, frames=16)


class FineTune(Method):
    """All of a tower trains but the token table; with both towers, the logit scale trains too.

    Features are averaged over frames as in zero-shot CLIP. Trainable parameters with both towers: 124,323,841 on
    ViT-B/16, 124,306,945 on ViCLIP-B/16 (the published 124.3 M).

    Presets normalise frames by the weights' own statistics, where ViFi-CLIP's code takes ImageNet's
    (``backbone.statistics=imagenet``).
    """

    paper: ClassVar[str] = "Rasheed et al., Fine-tuned CLIP Models are Efficient Video Learners, CVPR 2023"
    temporal: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """The towers that train."""

        towers: Literal["both", "video", "text"] = setting(
            "both", "towers that train", {"choice": ("both", "video", "text")}
        )

    config: Config

    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(method, recipe)
        for method in [Config(template="a photo of a {}.")]
        for name, recipe in (
            ("b2n", replace(FEWSHOT, epochs=11)),
            ("fewshot", FEWSHOT),
            ("zeroshot", replace(KINETICS, epochs=10, frames=32)),
            ("full", replace(KINETICS, lr=2.2e-5, batch_size=512)),
        )
    } | {
        f"full_{method.towers}": Preset(method, KINETICS)
        for method in [
            Config(towers="video", template="a photo of a {}."),
            Config(towers="text", template="a photo of a {}."),
        ]
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Return the base tensors that train."""
        words = id(self.backbone.word_embeddings)
        return [p for name, p in self.backbone.model.named_parameters() if id(p) != words and self._trains(name)]

    def _trains(self, name: str) -> bool:
        if name.startswith("logit_"):
            return name == "logit_scale" and self.config.towers == "both"
        tower = "video" if name.startswith("visual.") else "text"
        return self.config.towers in ("both", tower)

    def merged(self) -> dict[str, Tensor]:
        """Return no tensors: the backbone itself has learned."""
        return {}
