"""Learned prompts of each tower by itself: ViFi-CLIP's vision-language prompting, and CoOp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vlmodels.errors import refuse
from vlmodels.methods.base import Method, Preset, setting
from vlmodels.prompting import (
    PromptedMethod,
    add_prompts,
    depth_problems,
    learned_prompts,
    prompt_sources,
    vifi_recipe,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn


class Prompts(PromptedMethod):
    """Each tower learns its own prompts for its first layers.

    Trainable parameters: ``text_tokens text_depth Dt + video_tokens video_depth Dv`` for widths Dt and Dv; on
    ViT-B/16 153,600 for 10 x 12 in both towers, 8,192 for CoOp.

    Presets normalise frames by the weights' own statistics, where ViFi-CLIP's code takes ImageNet's
    (``backbone.statistics=imagenet``).
    """

    paper: ClassVar[str] = (
        "Rasheed et al., Fine-tuned CLIP Models are Efficient Video Learners, CVPR 2023 (vision-language prompting); "
        "Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022 (CoOp)"
    )
    temporal: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = False  # prompts start at random

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """Prompts per layer and the layers that get them; ``template`` is used only with text_tokens=0."""

        text_tokens: int = setting(10, "prompts per layer of the text tower; 0: none", {"choice": (4, 10, 16)})
        video_tokens: int = setting(10, "prompts per layer of the video tower; 0: none", {"choice": (4, 10, 16)})
        text_depth: int = setting(0, "first layers of the text tower that get prompts; 0: all", {"depth": "text"})
        video_depth: int = setting(0, "first layers of the video tower that get prompts; 0: all", {"depth": "video"})

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            names = ("text_tokens", "video_tokens", "text_depth", "video_depth")
            return [
                *super().rules(),
                *((getattr(self, name) >= 0, f"{name}={getattr(self, name)} must not be negative") for name in names),
                (
                    self.text_tokens != 0 or self.video_tokens != 0,
                    "text_tokens and video_tokens are both 0: nothing would learn; use zeroshot, or set one of them",
                ),
            ]

    config: Config

    # ViFi-CLIP uses prompts in base-to-novel and few-shot only; the other two schedules, and CoOp's, are ours.
    presets: ClassVar[Mapping[str, Preset]] = {
        "b2n": Preset(
            Config(text_tokens=16, video_tokens=16, text_depth=9, video_depth=9),
            vifi_recipe(lr=4e-2, epochs=11, batch_size=64, frames=32),
        ),
        "fewshot": Preset(
            Config(text_depth=12, video_depth=12), vifi_recipe(lr=8e-3, epochs=50, batch_size=64, frames=32)
        ),
        "zeroshot": Preset(
            Config(text_depth=12, video_depth=12), vifi_recipe(lr=8e-3, epochs=10, batch_size=256, frames=32)
        ),
        "full": Preset(
            Config(text_depth=12, video_depth=12), vifi_recipe(lr=8e-3, epochs=30, batch_size=256, frames=16)
        ),
        "coop": Preset(
            Config(text_tokens=16, video_tokens=0, text_depth=1),
            vifi_recipe(lr=8e-3, epochs=50, batch_size=64, frames=32),
        ),
    }

    @property
    def slots(self) -> int:
        """Number of prompts in the text tower."""
        return self.config.text_tokens

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Add prompts to the first layers of each tower."""
        config, spec = self.config, self.backbone.spec
        text = range(1, (config.text_depth or spec.text_layers) + 1) if config.text_tokens else range(0)
        video = range(1, (config.video_depth or spec.video_layers) + 1) if config.video_tokens else range(0)
        refuse(
            [
                *depth_problems("text_depth", len(text), spec.text_layers, f"the text tower of {spec.name}"),
                *depth_problems("video_depth", len(video), spec.video_layers, f"the video tower of {spec.name}"),
                *self.prompt_problems(self.trained_classes),
            ]
        )
        self.text_prompts = learned_prompts(config.text_tokens, spec.text_width, text)
        self.video_prompts = learned_prompts(config.video_tokens, spec.video_width, video)
        add_prompts(self.backbone, "text", prompt_sources(self.text_prompts))
        add_prompts(self.backbone, "video", prompt_sources(self.video_prompts))
        return self.text_prompts, self.video_prompts
