"""M2-CLIP: TED adapters in the video tower, adapters in the text tower, and a decoder of four tasks.

Wang et al., A Multimodal, Multi-Task Adapting Framework for Video Action Recognition, AAAI 2024 ([P] below), and its
release ([C]). Where both are silent, the choice is ours and a comment says so. They differ, and the defaults choose:

| | [P] | [C] | default |
|---|---|---|---|
| place of TED | before the attention | K400: before the MLP; SSv2: both | before the MLP |
| input of the classifier (VC) | the video's feature in the joint space | normed mean of the class tokens | [C] |
| convolution over the frames' features | no | yes | [C] |
| cross-entropy of CMC | over similarities | over their softmax | [P] |
| masked words (CMLM) | learned | never masked, so the head gets no gradient | [P] |
| text adapters | in the last layer | K400: as [P]; SSv2: in all | as [P] |

The presets ``paper`` and ``release`` are one side each. [P] prints neither rate, epochs and batch nor the weights of
its losses: ``paper`` has its model, and [C]'s recipe and weights.
"""

# Shapes: B clip, T frame, C class, L text token, V word of the vocabulary, D width of a tower, E of the joint space.

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.classifier import cosine_logits, unit
from vlmodels.errors import UserError, noted, refuse
from vlmodels.heads import ClassHead, merge_logits
from vlmodels.layers import LayerRange
from vlmodels.masked_words import MaskedWords, WordMasker, word_loss
from vlmodels.methods.base import Method, Output, Preset, setting
from vlmodels.methods.st_adapter import RELEASED
from vlmodels.sites import Site
from vlmodels.ted import TED, ConvBottleneck

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vlmodels.backbone import VideoFeatures
    from vlmodels.clip_context import ClipContext

SITES: Mapping[str, Mapping[str, Site]] = {
    "pre_attn": {"pre_attn": "tokens"},
    "pre_mlp": {"pre_mlp": "pre_mlp"},
    "both": {"pre_attn": "tokens", "pre_mlp": "pre_mlp"},
}

# [C]; its views are dense (stride 16), which [P] calls sparse
K400 = dataclasses.replace(RELEASED, lr=1e-3 * 72 / 256, batch_size=72)
SSV2 = dataclasses.replace(K400, lr=5e-4, epochs=50, batch_size=128, crop="resized", randaugment=True, flip=0.0)


class M2CLIP(Method):
    """Adapters in both towers (eq. 6-9) and four heads: contrastive, CMC, CMLM (eq. 10-12) and VC.

    Trainable parameters, for widths Dv, Dt and E of the towers and the joint space, bottlenecks m, n and e = E/2,
    C classes and V words: a TED adapter (2 Dv m + m + Dv) twice, + 4 m (TE) + 10 m (TD); a text adapter
    2 Dt n + n + Dt, in the last k layers and the CMLM block; frame adapter 2 E e + 5 e + E; VC (Dv + 1) C;
    masked-word head (Dt + 1) (Dt + V) + 2 Dt. On ViT-B/16 with C = 400 and V = 520: 16,138,136 (16 M in [P]).

    At pre_mlp, the last block's TED acts after its attention: TE changes the class token, but TD changes patches only,
    does not reach the output and does not train, unless the tower is joint and reads frame features from patches, or
    pools all its tokens (``VideoView``). A tower without a class token has nothing that TE could change; the classifier
    reads the pooled token, which is the class token in CLIP.
    """

    paper: ClassVar[str] = (
        "Wang et al., M2-CLIP: A Multimodal, Multi-Task Adapting Framework for Video Action Recognition, AAAI 2024"
    )
    temporal: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = False  # text adapters start at random ([C]), and so does the classifier

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """The choices of paper and release; the module's table says which of them are the defaults."""

        template: str = setting("a video of {}", "class prompt; {} stands for the class name")
        layers: str = setting(
            "all", "video blocks with TED adapters: a range such as 8-12, or all", {"layers": "video"}
        )
        dims: int = setting(384, "bottleneck of TE and of TD", {"choice": (128, 256, 384)})
        ted: Literal["parallel", "sequential", "te", "td"] = setting(
            "parallel",
            "TE and TD of the same input, TD after TE, or one of them alone",
            {"choice": ("parallel", "sequential", "te", "td")},
        )
        site: Literal["pre_mlp", "pre_attn", "both"] = setting(
            "pre_mlp", "where in a video block: before its attention, its MLP, or both", {"choice": tuple(SITES)}
        )
        text_layers: int = setting(1, "last text blocks with adapters", {"choice": (0, 1, 2)}, apart={"depth": "text"})
        text_dims: int = setting(384, "bottleneck of a text adapter")
        text_site: Literal["pre_mlp", "pre_attn", "both"] = setting(
            "pre_mlp", "where in a text block, the CMLM one included"
        )
        text_adapter_zero_init: bool = setting(False, "text adapters start at identity (not published)")
        frame_adapter: bool = setting(True, "a temporal convolution over the frames' features (release only)")
        contrastive: float = setting(0.5, "weight of the contrastive loss; 0 leaves it out")
        cmc: float = setting(0.5, "weight of the cross-modal classification; 0 leaves it out")
        cmc_double_softmax: bool = setting(False, "feed probabilities to its cross-entropy, as the release does")
        cmlm: float = setting(0.1, "weight of the masked words; 0 leaves the head out", {"choice": (0.0, 0.1, 1.0)})
        mlm_shared_pass: bool = setting(False, "the contrastive loss reads the masked prompts, as in the release")
        mask_template_words: bool = setting(True, "mask the template's words too")
        vocabulary: int = setting(0, "least rows of the masked-word head; 0: as many as the class prompts have words")
        vc: float = setting(1.0, "weight of the visual classifier; 0 leaves the head out")
        vc_input: Literal["cls", "embed"] = setting(
            "cls",
            "what it reads: the normed mean of class (pooled) tokens, or the video's feature in the joint space",
        )
        score_mode: Literal["vc", "text"] = setting(
            "vc",
            "what scores: the visual classifier, and texts for classes that it does not know, or texts alone",
        )

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not)."""
            weights = ("contrastive", "cmc", "cmlm", "vc")
            return [
                *super().rules(),
                LayerRange.rule(self.layers),
                *((getattr(self, n) >= 1, f"{n}={getattr(self, n)} must be at least 1") for n in ("dims", "text_dims")),
                *(
                    (getattr(self, n) >= 0, f"{n}={getattr(self, n)} must not be negative")
                    for n in (*weights, "text_layers", "vocabulary")
                ),
                (
                    self.contrastive > 0 or self.cmc > 0,
                    "contrastive=0 and cmc=0 leave no loss between videos and texts; set one above 0",
                ),
                (self.vc > 0 or self.score_mode == "text", "vc=0 leaves no classifier; set score_mode=text"),
                (self.cmlm > 0 or not self.mlm_shared_pass, "cmlm=0 masks no prompts; set mlm_shared_pass=false"),
            ]

    config: Config

    presets: ClassVar[Mapping[str, Preset]] = {
        # the paper trains on all of K400 and SSv2 only: the presets of other protocols are our reading
        "b2n": Preset(Config(), K400),
        "fewshot": Preset(Config(), dataclasses.replace(K400, epochs=50)),
        "zeroshot": Preset(Config(vocabulary=520, score_mode="text"), K400),
        "full": Preset(Config(vocabulary=520), K400),
        # [P]'s model; the recipe and the weights of the losses are [C]'s, as [P] prints none
        "paper": Preset(Config(site="pre_attn", vc_input="embed", frame_adapter=False, vocabulary=520), K400),
        # all of [C]; it counts its masked-word head as well, 924,552 parameters, which never gets a gradient
        "release": Preset(Config(cmc_double_softmax=True, cmlm=0.0), K400),
        "ssv2_paper": Preset(Config(site="pre_attn", vc_input="embed", frame_adapter=False), SSV2),
        "ssv2_release": Preset(
            Config(site="both", text_layers=12, text_site="both", cmc_double_softmax=True, cmlm=0.0), SSV2
        ),
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Add the adapters to the towers, and build the heads; those of fixed classes need training classes."""
        config, spec = self.config, self.backbone.spec
        layers, problems = range(0), list[str]()
        with noted(problems):
            layers = LayerRange.parse(config.layers).within(spec.video_layers, f"the video tower of {spec.name}")
        if config.text_layers > spec.text_layers:
            problems.append(
                f"text_layers={config.text_layers} is more than the {spec.text_layers} text layers of {spec.name}"
            )
        refuse(problems)
        self._add_adapters(layers)
        self._build_heads()
        built = (self.ted, self.text_adapter, self.frame_adapter, self.classifier, self.words)
        return [part for part in built if part is not None]

    def _add_adapters(self, layers: range) -> None:
        """Add TED to these layers of the video tower, text adapters to the last text layers, and the frame adapter."""
        config, spec = self.config, self.backbone.spec
        self.ted, self.text_adapter = nn.ModuleDict(), nn.ModuleDict()
        for layer in layers:
            self.ted[str(layer)] = placed = nn.ModuleDict()
            for place, site in SITES[config.site].items():
                placed[place] = ted = TED(spec.video_width, config.dims, config.ted)
                self.backbone.add("video", layer, site, ted)
        for layer in range(spec.text_layers - config.text_layers + 1, spec.text_layers + 1):
            self.text_adapter[str(layer)] = placed = text_adapters(spec.text_width, config)
            for place, site in SITES[config.text_site].items():
                self.backbone.add("text", layer, site, placed[place])
        dims = spec.embed_dim
        self.frame_adapter = ConvBottleneck(dims, dims // 2, (3, 1)) if config.frame_adapter else None

    def _build_heads(self) -> None:
        """Build the visual classifier and the masked-word head for the training classes, if there are any."""
        config, spec = self.config, self.backbone.spec
        self.classifier = self.words = None
        if config.vc and self.trained_classes:
            width = spec.video_width if config.vc_input == "cls" else spec.embed_dim
            self.classifier = ClassHead(width, self.trained_classes, dropout=0.5)
        if config.cmlm and self.trained_classes:
            names = [self.name_in_text(name) for name in self.trained_classes]
            self.masker = WordMasker(names, config.template, template_words=config.mask_template_words)
            rows = max(config.vocabulary, len(self.masker.vocabulary))
            self.words = MaskedWords(spec.text_width, rows, text_adapters(spec.text_width, config))
            if config.text_layers:  # [C]: they start as a copy of the last block's
                self.words.adapter.load_state_dict(self.text_adapter[str(spec.text_layers)].state_dict())

    @property
    def trains_by_cosine(self) -> bool:
        """No: four tasks have outputs of their own."""
        return False

    def learning_rate_factors(self) -> list[tuple[nn.Module, float]]:
        """Return the text adapters, which learn at half the rate ([C])."""
        parts = [self.text_adapter] if self.words is None else [self.text_adapter, self.words.adapter]
        return [(part, 0.5) for part in parts]

    def encode_video(self, frames: Tensor) -> Tensor:
        """Return L2-normalised features (B,E) of normalised frames (B,T,3,H,W)."""
        return unit(reduce(self._frame_features(self.backbone.encode_video(frames)), "b t e -> b e", "mean"))

    def _frame_features(self, features: VideoFeatures) -> Tensor:
        """Return features of the frames (B,T,E), whose mean is the video's."""
        if self.frame_adapter is None:
            return features.frame
        adapted: Tensor = self.frame_adapter(rearrange(features.frame, "b t e -> b t 1 e"))
        return features.frame + rearrange(adapted, "b t 1 e -> b t e")

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:
        """Score clips (B,T,3,H,W) against the classes.

        ``extra`` has ``text_logits`` (B,C) and, if the classifier covers all classes, ``class_logits`` (B,C). In
        training, ``labels`` choose the prompts of the contrastive and the masked-word head; ``extra`` then also has
        ``pair_logits`` (B,B), ``word_logits`` (B,L,V) and ``word_labels`` (B,L).

        Raises:
            UserError: in training, the set classes include others than those of training.
        """
        text, scale = self.encode_classes(), self.backbone.logit_scale
        features = self.backbone.encode_video(frames)
        frame = self._frame_features(features)
        embed = reduce(frame, "b t e -> b e", "mean")
        video = unit(embed)
        logits = cosine_logits(video, text, scale)
        extra = {"text_logits": logits}
        if self.classifier is not None:
            pooled = embed
            if self.config.vc_input == "cls":
                pooled = features.mean_token
            if self.classifier.covers(self.classes):
                extra["class_logits"] = self.classifier(pooled, self.classes)
            if self.config.score_mode == "vc":
                logits = merge_logits(self.classifier, pooled, self.classes, logits)
        if self.training and labels is not None:
            extra |= self._training_outputs(video, text, frame, labels)
        return Output(logits, video, text, extra)

    def _training_outputs(self, video: Tensor, text: Tensor, frame: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the contrastive and the masked-word head for the prompts of the labels."""
        if others := [name for name in self.classes if name not in self.trained_classes]:
            raise UserError(f"m2clip can only train on the classes that it was built for, not on {', '.join(others)}")
        chosen = labels if labels.ndim == 1 else labels.argmax(dim=-1)
        paired = text[chosen]
        outputs: dict[str, Tensor] = {}
        if self.words is not None:
            masked, outputs = self._guess_words(self.words, frame, chosen)
            paired = masked if self.config.mlm_shared_pass else paired
        return outputs | {"pair_logits": cosine_logits(video, paired, self.backbone.logit_scale)}

    def _guess_words(self, head: MaskedWords, frame: Tensor, chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return features (B,E) of the masked prompts of classes (B,), and the logits and labels of their words."""
        backbone, names = self.backbone, [self.name_in_text(self.classes[index]) for index in chosen.tolist()]
        tokens, labels = (ids.to(frame.device) for ids in self.masker(names, backbone))
        states = backbone.text_states(tokens)
        logits = head(states, frame, backbone.block("text", backbone.spec.text_layers), backbone.text_norm)
        return unit(backbone.pool_text(states, tokens)), {"word_logits": logits, "word_labels": labels}

    def losses(self, out: Output, labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses of the four tasks for the output of a training step; the weights are [C]'s."""
        config, terms = self.config, {}
        if config.contrastive:
            terms["contrastive"] = config.contrastive * pair_loss(out.extra["pair_logits"], labels, len(self.classes))
        if config.cmc:  # eq. 11 under one cross-entropy, as [P] says
            scores = out.extra["text_logits"]
            scores = scores.softmax(dim=-1) if config.cmc_double_softmax else scores
            terms["cmc"] = config.cmc * functional.cross_entropy(scores, labels)
        if config.cmlm:
            terms["cmlm"] = config.cmlm * word_loss(out.extra["word_logits"], out.extra["word_labels"])
        if config.vc:
            terms["vc"] = config.vc * functional.cross_entropy(out.extra["class_logits"], labels)
        return terms


def pair_loss(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the symmetric KL divergence of eq. 10 over the pairs of a batch; logits (B,B) are videos by texts.

    The target is ActionCLIP's: a softmax over 10 for pairs of one class and 0 for others. With soft labels (B,C), a
    pair has 10 times the product of its two rows (ours), which equals that for hard labels.
    """
    rows = functional.one_hot(labels, classes) if labels.ndim == 1 else labels
    target = (10 * rows.float() @ rows.float().T).softmax(dim=-1)
    by_video, by_text = (
        functional.kl_div(side.log_softmax(dim=-1), target, reduction="batchmean") for side in (logits, logits.T)
    )
    return 0.5 * (by_video + by_text)


class TextAdapter(nn.Module):
    """``z + Wup gelu(Wdown z)`` at each token (eq. 9)."""

    def __init__(self, width: int, dims: int, *, zero_init: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dims), nn.Linear(dims, width)
        for zero in (self.down.bias, self.up.bias, *([self.up.weight] if zero_init else [])):
            nn.init.zeros_(zero)

    def forward(self, z: Tensor, context: ClipContext | None = None) -> Tensor:  # noqa: ARG002 - every hook's signature
        """Return tokens of the shape of ``z`` (C,L,D)."""
        up: Tensor = self.up(functional.gelu(self.down(z)))
        return z + up


def text_adapters(width: int, config: M2CLIP.Config) -> nn.ModuleDict:
    """Create a text block's adapters, by place."""
    return nn.ModuleDict(
        {
            place: TextAdapter(width, config.text_dims, zero_init=config.text_adapter_zero_init)
            for place in SITES[config.text_site]
        }
    )
