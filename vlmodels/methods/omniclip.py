"""OmniCLIP: attention along time parallel to frozen blocks, and prompts made of each block's own patches.

Liu et al., OmniCLIP: Adapting CLIP for Video Recognition with Spatial-Temporal Omni-Scale Feature Learning, ECAI
2024 ([P] below). Where the paper leaves a choice open, a comment at the line names ours.
"""

# Shapes: B clip, T frame, C class, D width of the video tower, E width of the joint space.

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

from vlmodels.classifier import cosine_logits, unit
from vlmodels.errors import noted, refuse
from vlmodels.heads import ClassHead, merge_logits, untrained_texts
from vlmodels.layers import LayerRange
from vlmodels.methods.base import Method, Output, Preset, Recipe, setting
from vlmodels.self_prompts import SelfPrompts
from vlmodels.temporal_adapter import CascadedAdapter, FrameAttention, TemporalAdapter, TemporalEncoding
from vlmodels.video_prompts import VideoPrompts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vlmodels.backbone import TextPrefix
    from vlmodels.sites import Site

HEADS = 8  # of the attentions in the joint space; X-CLIP's 512 / 64

SUPERVISED = Recipe(  # [P] table 1, K400; the rest as X-CLIP, which it follows
    lr=2e-3,
    epochs=50,
    batch_size=256,
    weight_decay=0.003,
    no_decay="vectors",
    beta1=0.9,
    beta2=0.98,
    label_smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    crop="multiscale",
)
SMALL = replace(SUPERVISED, epochs=30, batch_size=32)  # [P] table 1, HMDB51 and UCF101; its text says 50 epochs
FEW = replace(SMALL, batch_size=8, frames=32)  # [P] states frames and batch, but neither rate nor epochs

_SITES: Mapping[str, Site] = {"parallel": "parallel_block", "cascade": "tokens", "attention": "parallel_attn"}


class OmniCLIP(Method):
    """Temporal adapters (PTA) parallel to the blocks, self-generated prompts (SPG), attention over frames.

    Block i maps ``X = [V, SPG(V)]`` to ``Block(X) + alpha PTA(X)`` (eq. 2-4). Trainable parameters, with widths
    D and E, T frames, h = SPG's hidden units and r = ratio D:
    PTA ``2 D r + D + 4 r r + 7 r + 1`` a layer; SPG ``2 D h + D + h`` a layer; temporal encoding ``T D``; last
    attention ``4 E E + 6 E``; video-specific prompts ``2 D + D E + 24 E E + 23 E``, or for C classes the linear
    head's ``C E + C + 2 E``. 27,263,756 on ViT-B/16 with 8 frames.

    A frame's feature is that of its pooled token, the class token in CLIP (``VideoView``); SPG and the video-specific
    prompts read patches alone. Presets take the statistics of the weights' own frames, where X-CLIP's code, which
    [P]'s recipe follows, takes ImageNet's (``backbone.statistics=imagenet``).
    """

    paper: ClassVar[str] = (
        "Liu et al., OmniCLIP: Adapting CLIP for Video Recognition with Spatial-Temporal Omni-Scale Feature Learning, "
        "ECAI 2024"
    )
    temporal: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = (
        False  # prompts enter the frozen blocks, and class features depend on the video
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """The published choices, and those of the ablations (tables 7 to 11)."""

        template: str = setting("A video of {} action", "class prompt; {} stands for the class name")  # [P] 3.1
        pta: Literal["parallel", "cascade", "attention", "none"] = setting(
            "parallel",
            "temporal adapters parallel to the block, before it, or parallel to its attention",
            {"choice": tuple(_SITES)},
        )
        layers: str = setting(
            "all",
            "blocks with temporal adapters: a range such as 1-6, or all",
            {"layers": "video"},
        )
        ratio: float = setting(
            0.25, "hidden units of a temporal adapter per unit of width", {"choice": (0.125, 0.25, 0.5, 1.0)}
        )
        pta_inner_residual: bool = setting(False, "a residual around the adapter's attention (eq. 7 has none)")
        # New prompts for each block are our reading: [P] adds prompts to the input alone before eq. 2, but "commencing
        # with R^0", and writes R^i in eq. 6 and section 3.3. Of its cost of 130, which leaves out the frozen attention,
        # a like count of ours gives 131 with prompts for each block and 126 with prompts once.
        spg: Literal["layer", "input", "none"] = setting(
            "layer", "new self-prompts for each block, or once at the input", {"choice": ("layer", "input", "none")}
        )
        spg_pool: Literal["avg", "max"] = setting("avg", "how 2 x 2 patches become one", {"choice": ("avg", "max")})
        spg_mlp: bool = setting(True, "project the pooled patches", {"choice": (True, False)})
        spg_hidden: int = setting(0, "hidden units of that projector; 0: as many as the tower is wide")
        spg_share: bool = setting(False, "one projector for all blocks")
        mha_residual: bool = setting(True, "a residual around the attention over frames (eq. 5 has none)")
        head: Literal["text", "linear", "text_fixed"] = setting(
            "text", "class texts with video-specific prompts, a linear classifier, or class texts alone"
        )

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            return [
                *super().rules(),
                LayerRange.rule(self.layers),
                (0 < self.ratio <= 1, f"ratio={self.ratio} must be above 0 and at most 1"),
                (self.spg_hidden >= 0, f"spg_hidden={self.spg_hidden} must not be negative"),
            ]

    config: Config

    presets: ClassVar[Mapping[str, Preset]] = {
        # not in [P]: as few-shot, with its 32 frames, which its views have too
        "b2n": Preset(Config(), FEW),
        "fewshot": Preset(Config(), FEW),
        "zeroshot": Preset(Config(), replace(SUPERVISED, epochs=10, frames=32)),  # trained on K400
        "full": Preset(Config(), SUPERVISED),  # K400
        # the head is ILA's; table 1 flips videos, although classes of SSv2 differ by left and right
        "ssv2": Preset(Config(head="linear"), replace(SUPERVISED, lr=3.5e-3, weight_decay=0.01)),
        "hmdb_ucf": Preset(Config(), SMALL),
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Add the temporal encoding, the prompt generators and the temporal adapters, and build the heads."""
        config, spec = self.config, self.backbone.spec
        heads = math.gcd(HEADS, spec.embed_dim)
        self.temporal_encoding = TemporalEncoding(spec.frames, spec.video_width)
        # before ln_pre, where CLIP adds its positions
        self.backbone.add("video", 0, "embed", self.temporal_encoding)
        self.self_prompts, self.temporal_adapter = nn.ModuleDict(), nn.ModuleDict()
        self._attach_self_prompts()  # first: the adapters' input contains the prompts ([P] 3.3)
        self._attach_temporal_adapters()
        self.frame_attention = FrameAttention(spec.embed_dim, heads, residual=config.mha_residual)
        learned = [self.temporal_encoding, self.self_prompts, self.temporal_adapter, self.frame_attention]
        if config.head == "text":
            self.video_prompts = VideoPrompts(spec.video_width, spec.embed_dim, heads)
            return [*learned, self.video_prompts]
        if config.head == "linear":
            self.head_norm = nn.LayerNorm(spec.embed_dim)
            self.head = ClassHead(spec.embed_dim, self.trained_classes, dropout=0.5)
            return [*learned, self.head_norm, self.head]
        return learned

    def _attach_self_prompts(self) -> None:
        config, spec = self.config, self.backbone.spec
        last = {"layer": spec.video_layers, "input": 1, "none": 0}[config.spg]
        hidden = (config.spg_hidden or spec.video_width) if config.spg_mlp else None
        for layer in range(1, last + 1):
            if layer == 1 or not config.spg_share:
                generator = SelfPrompts(spec.video_width, hidden, config.spg_pool)
                self.self_prompts[str(layer)] = generator
            self.backbone.add("video", layer, "tokens", generator)

    def _attach_temporal_adapters(self) -> None:
        config, spec = self.config, self.backbone.spec
        layers, problems = range(0), list[str]()
        with noted(problems):
            layers = LayerRange.parse(config.layers).within(spec.video_layers, f"the video tower of {spec.name}")
        hidden, heads = round(config.ratio * spec.video_width), spec.video_heads
        if config.pta != "none" and (hidden % heads or not hidden):
            problems.append(
                f"ratio={config.ratio} makes {hidden} hidden units of the {spec.video_width} of {spec.name}, which its "
                f"{heads} heads cannot share evenly; use 0.25 or 0.5"
            )
        refuse(problems)
        for layer in layers if config.pta != "none" else ():
            adapter = TemporalAdapter(spec.video_width, hidden, heads, inner_residual=config.pta_inner_residual)
            self.temporal_adapter[str(layer)] = adapter
            hook = CascadedAdapter(adapter) if config.pta == "cascade" else adapter
            self.backbone.add("video", layer, _SITES[config.pta], hook)

    @property
    def text_learns(self) -> bool:
        """Whether class texts learn: with prompts that depend on the video."""
        return self.config.head == "text"

    @property
    def trains_by_cosine(self) -> bool:
        """Whether class texts score in training."""
        return self.config.head != "linear"

    def retrieval_problems(self) -> list[str]:
        """Return why captions cannot be scored: their features depend on the video or do not train."""
        problems = super().retrieval_problems()
        if self.config.head == "text_fixed":
            return problems
        why = "depend on the video" if self.config.head == "text" else "are not trained"
        return [
            *problems,
            f"with method.head={self.config.head}, texts {why}; for retrieval, set method.head=text_fixed",
        ]

    def search_problems(self) -> list[str]:
        """Return why texts cannot search: what a text's feature is depends on the video, or it is not trained."""
        if self.config.head == "text":
            return [
                "with method.head=text, the feature of a text depends on the video that it is compared with, so stored "
                "features have no score; for text search, train with method.head=text_fixed"
            ]
        return untrained_texts(self.config.head)

    def encode_video(self, frames: Tensor) -> Tensor:
        """Return L2-normalised features (B,E) of normalised frames (B,T,3,H,W)."""
        return unit(self.frame_attention(self.backbone.encode_video(frames)))

    def encode_classes(self) -> Tensor:
        """Return L2-normalised features (C,E) of the class prompts alone, without the video-specific prompts."""
        return unit(self._class_features())

    def _class_features(self) -> Tensor:
        return super().encode_classes()

    def encode_prompts(self, prefix: TextPrefix | None) -> Tensor:
        """Return features (C,E) that are not normalised: X-CLIP adds its prompts to CLIP's features as they are."""
        return self.prompt_features(prefix)

    def _classifier_output(self, video: Tensor) -> Output:
        pooled = self.head_norm(video)
        if self.classes and self.head.covers(self.classes):
            return Output(self.head(pooled, self.classes), video, video.new_empty(0, video.shape[-1]))
        text = self.encode_classes()
        text_logits = cosine_logits(video, text, self.backbone.logit_scale)
        return Output(merge_logits(self.head, pooled, self.classes, text_logits), video, text)

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:  # noqa: ARG002 - some methods use them
        """Score clips (B,T,3,H,W): ``scale cos(F_V, F_T)`` (eq. 8; CLIP's scale, which eq. 9 lacks), or the head.

        ``text`` is (B,C,E) with video-specific prompts, and empty (0,E) if the linear head covers all classes: then the
        text tower does not run. Other classes are scored by their texts, see ``merge_logits``.
        """
        features = self.backbone.encode_video(frames)
        video = unit(self.frame_attention(features))
        if self.config.head == "linear":
            return self._classifier_output(video)
        if self.config.head == "text":
            text = unit(self.video_prompts(self._class_features(), features.tokens.patches))
        else:
            text = self.encode_classes()
        return Output(cosine_logits(video, text, self.backbone.logit_scale), video, text)
