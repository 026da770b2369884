"""ViLT-CLIP: deep prompts in both towers, each tower's mapped from the other's, and class texts close to CLIP's.

Wang et al., ViLT-CLIP: Video and Language Tuning CLIP with Multimodal Prompt Learning and Scenario-Guided
Optimization, AAAI 2024 ([P] below). There is no public code; where [P] leaves a choice open, ours is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from vlmodels.classifier import contrastive_loss, cosine_logits, description_features, prompt, unit
from vlmodels.errors import refuse
from vlmodels.methods.base import Method, Output, Preset, setting
from vlmodels.prompting import (
    PromptedMethod,
    PromptSource,
    add_prompts,
    depth_problems,
    learned_prompts,
    prompt_sources,
    vifi_recipe,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class ViLTCLIP(PromptedMethod):
    """Layers 1 to K learn text prompts P, and F(P) for the video tower; layers K+1 to J the reverse (eq. 10, 11).

    Trainable parameters for b prompts and widths Dt and Dv:
    ``b (K Dt + (J - K) Dv) + (Dt Dv + Dv) + (Dv Dt + Dt)``, the maps K and J - K times with ``per_layer_maps``.
    On ViT-B/16: 864,512 for b = 10, J = 12, K = 6.

    The rows of table 6 are text_only, independent and coupled, each with alpha=0, and coupled. "Independent" in tables
    1 and 4 is independent with alpha=0; tables 7 and 8 do not say which alpha theirs has.

    Presets normalise frames by the weights' own statistics; [P] does not name any. ViFi-CLIP's code, whose other
    settings it takes, has ImageNet's (``backbone.statistics=imagenet``).
    """

    paper: ClassVar[str] = (
        "Wang et al., ViLT-CLIP: Video and Language Tuning CLIP with Multimodal Prompt Learning and "
        "Scenario-Guided Optimization, AAAI 2024"
    )
    temporal: ClassVar[bool] = False  # frames meet only in their mean
    starts_as_backbone: ClassVar[bool] = False  # prompts start at random

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """The published choices; where [P] is silent, those of ViFi-CLIP and KgCoOp."""

        template: str = setting(
            "a video of a person doing {}.", "frozen text that a class's feature stays close to; {} stands for the name"
        )
        variant: Literal["coupled", "independent", "text_only"] = setting(
            "coupled",
            "prompts joined by maps, of each tower by itself, or of the text tower alone",
            {"choice": ("coupled", "independent", "text_only")},
        )
        tokens: int = setting(10, "b: prompts per layer", {"choice": (4, 6, 10, 16)})
        video_tokens: int = setting(0, "prompts per layer of the video tower if independent; 0: as many as tokens")
        depth: int = setting(
            0, "J: first layers that get prompts of their own; 0: all of the shallower tower", {"depth": "both"}
        )
        split: int = setting(0, "K: first layers whose prompts the text tower learns; 0: half of the tower's layers")
        per_layer_maps: bool = setting(False, "maps of their own for each layer, as in MaPLe, instead of one each way")
        alpha: float = setting(8.0, "weight of the scenario-guided loss", {"choice": (0.0, 1.0, 8.0)})
        temperature: float = setting(
            0.07, "tau: what cosines are divided by; 0: CLIP's own, 0.01", {"loguniform": (0.01, 0.1)}
        )

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            names = ("video_tokens", "depth", "split", "alpha", "temperature")
            return [
                *super().rules(),
                (self.tokens >= 1, f"tokens={self.tokens} must be at least 1"),
                *((getattr(self, name) >= 0, f"{name}={getattr(self, name)} must not be negative") for name in names),
                (
                    self.variant == "independent" or self.video_tokens <= 0,
                    f"video_tokens={self.video_tokens} needs variant=independent: a map keeps the number of prompts",
                ),
                (
                    self.variant == "coupled" or not self.per_layer_maps,
                    f"per_layer_maps=True needs variant=coupled: {self.variant} has no maps",
                ),
            ]

    config: Config

    # [P] states prompts, epochs and rates of few-shot and base-to-novel; the rest is ViFi-CLIP's or ours. K is half of
    # the tower, so 6 for 10 layers too. The pairs of retrieval have no classes to mix or to smooth over.
    presets: ClassVar[Mapping[str, Preset]] = {
        "b2n": Preset(Config(tokens=16, depth=10, split=6), vifi_recipe(lr=4e-2, epochs=12, batch_size=64, frames=32)),
        "fewshot": Preset(
            Config(tokens=10, depth=12, split=6), vifi_recipe(lr=8e-3, epochs=30, batch_size=64, frames=32)
        ),
        "zeroshot": Preset(
            Config(tokens=10, depth=12, split=6), vifi_recipe(lr=8e-3, epochs=10, batch_size=256, frames=32)
        ),
        "full": Preset(
            Config(tokens=10, depth=12, split=6), vifi_recipe(lr=8e-3, epochs=30, batch_size=256, frames=16)
        ),
        "retrieval": Preset(
            Config(tokens=6, depth=12, split=6),
            vifi_recipe(lr=8e-3, epochs=12, batch_size=128, frames=12, label_smoothing=0.0, mixup=0.0, cutmix=0.0),
        ),
    }

    @property
    def slots(self) -> int:
        """Number of prompts in the text tower."""
        return self.config.tokens

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Create prompts and maps, and add them to the layers of both towers."""
        config, spec = self.config, self.backbone.spec
        depth, split = self._depth_and_split()
        coupled = config.variant == "coupled"
        in_text = range(1, (split if coupled else depth) + 1)
        in_video = range(0) if config.variant == "text_only" else range(split + 1 if coupled else 1, depth + 1)
        self.text_prompts = learned_prompts(config.tokens, spec.text_width, in_text)
        self.video_prompts = learned_prompts(config.video_tokens or config.tokens, spec.video_width, in_video)
        text, video = prompt_sources(self.text_prompts), prompt_sources(self.video_prompts)
        self.text_to_video, self.video_to_text = nn.ModuleDict(), nn.ModuleDict()  # F and F~
        if coupled:
            from_text = self._maps(self.text_to_video, spec.text_width, spec.video_width, in_text)
            from_video = self._maps(self.video_to_text, spec.video_width, spec.text_width, in_video)
            # Eq. 11's second line prints P~ as an output of the layer before. We read it as learned per layer, as the
            # paper's text says: otherwise class texts would depend on the video.
            mapped_text = {layer: MappedPrompts(video[layer], from_video[layer]) for layer in in_video}  # eq. 10
            mapped_video = {layer: MappedPrompts(text[layer], from_text[layer]) for layer in in_text}  # eq. 11
            text, video = text | mapped_text, mapped_video | video
        add_prompts(self.backbone, "text", text)
        add_prompts(self.backbone, "video", video)
        return self.text_prompts, self.video_prompts, self.text_to_video, self.video_to_text

    def _depth_and_split(self) -> tuple[int, int]:
        """Return J and K for this backbone.

        Raises:
            UserError: they do not fit it, or class names do not fit behind the prompts; one message names all.
        """
        config, spec = self.config, self.backbone.spec
        text_only = config.variant == "text_only"
        layers = spec.text_layers if text_only else min(spec.text_layers, spec.video_layers)
        where = f"the {'text' if text_only else 'shallower'} tower of {spec.name}"
        problems = depth_problems("depth", config.depth, layers, where)
        depth = min(config.depth or layers, layers)
        split = config.split or min(depth, max(1, layers // 2))
        if config.variant == "coupled" and split > depth:
            problems.append(
                f"split={split} is beyond the {depth} layers that can have prompts; "
                f"use 1 to {depth}, or 0 for half of the tower"
            )
        refuse([*problems, *self.prompt_problems(self.trained_classes)])
        return depth, split

    def prompt_problems(self, names: Sequence[str]) -> list[str]:
        """Return messages about class prompts and about the scenario-guided loss's texts that do not fit."""
        problems = super().prompt_problems(names)
        scenarios = {name: prompt(self.name_in_text(name), self.config.template) for name in names}
        long = [name for name, text in scenarios.items() if not self.backbone.fits(text)]
        if long and self.config.alpha:
            problems = [
                *problems,
                f"method.template makes texts longer than the text context for: {', '.join(long)}; shorten it",
            ]
        return problems

    def _maps(self, store: nn.ModuleDict, inputs: int, outputs: int, layers: range) -> dict[int, nn.Module]:
        """Return a map for each layer, shared or with ``per_layer_maps`` its own, and register them in ``store``."""
        if self.config.per_layer_maps:
            maps: dict[int, nn.Module] = {layer: nn.Linear(inputs, outputs) for layer in layers}
            store.update({str(layer): linear for layer, linear in maps.items()})
            return maps
        maps = dict.fromkeys(layers, nn.Linear(inputs, outputs))
        if layers:
            store["shared"] = maps[layers[0]]
        return maps

    @property
    def cosine_scale(self) -> Tensor:
        """1 / tau, the factor of cosines."""
        own = self.backbone.logit_scale
        return torch.full_like(own, 1 / self.config.temperature) if self.config.temperature else own

    def losses(self, out: Output, labels: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy over all classes (eq. 13) and alpha times the scenario-guided loss (eq. 14)."""
        terms = super().losses(out, labels)
        if self.config.alpha:
            frozen = self.cached("scenario", (), self._frozen_classes)
            terms["scenario"] = self.config.alpha * scenario_loss(out.text, frozen)
        return terms

    def _frozen_classes(self) -> Tensor:
        texts = {name: [prompt(self.name_in_text(name), self.config.template)] for name in self.classes}
        return unit(description_features(self.backbone, texts, self.classes))

    def caption_features(self, captions: Sequence[str]) -> tuple[Tensor, ...]:
        """Return features (N,E) of the captions, and for the scenario-guided loss CLIP's frozen ones."""
        text = super().caption_features(captions)
        if not self.config.alpha:
            return text
        own = {caption: [caption] for caption in captions}
        return (*text, unit(description_features(self.backbone, own, captions, cache=False)))

    def pair_terms(self, video: Tensor, text: Tensor, *others: Tensor) -> dict[str, Tensor]:
        """Return InfoNCE in both directions at tau, and the scenario-guided loss to CLIP's features of the captions.

        [P] states no loss for retrieval; both terms are our reading. A caption is its own scenario, without a template.
        """
        terms = {"contrastive": contrastive_loss(cosine_logits(video, text, self.cosine_scale))}
        if self.config.alpha:
            terms["scenario"] = self.config.alpha * scenario_loss(text, *others)
        return terms


def scenario_loss(text: Tensor, frozen: Tensor) -> Tensor:
    """Return the mean of ``1 - cos(c, c_clip)`` over L2-normalised features (C,E).

    Eq. 12 prints the mean cosine; added to the loss, it would push apart what the paper's text says is drawn together.
    """
    return (1 - (text * frozen).sum(dim=-1)).mean()


class MappedPrompts:
    """Prompts of the other tower, mapped to this tower's width."""

    def __init__(self, source: PromptSource, linear: nn.Module) -> None:
        self.source, self.linear = source, linear

    def __call__(self) -> Tensor:
        """Return the prompts (b,D)."""
        mapped: Tensor = self.linear(self.source())
        return mapped
