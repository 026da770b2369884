"""The base class of all methods, their settings, and the published recipes that train them."""

from __future__ import annotations

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.class_cache import ClassCache
from vlmodels.classifier import Descriptions, check_names, contrastive_loss, cosine_logits, prompt, unit
from vlmodels.errors import UserError, nearest, refuse
from vlmodels.regularisers import build_regulariser, regularised
from vlmodels.weights import key_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vlmodels.backbone import Backbone, TextPrefix

_Value = TypeVar("_Value")
_WORD_STARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # in glued names: ApplyEyeMakeup


def setting(
    default: Any, text: str, tune: Mapping[str, Any] | None = None, *, apart: Mapping[str, Any] | None = None
) -> Any:
    """Declare a field of a method's ``Config``: its default, its help text and what a sweep may try.

    Args:
        default: the field's default.
        text: its help text.
        tune: what a search tries: {"choice": values}, {"loguniform": (low, high)} or {"uniform": (low, high)};
            {"layers": tower}, a range of the tower's blocks; or {"depth": tower}, how many of its first or last
            blocks, from 1. A tower is "video", "text", or "both": the shallower of the two. None: not searched.
        apart: what a search over layers tries instead of ``tune`` if it varies the towers separately.
    """
    return field(default=default, metadata={"help": text, "tune": tune, "tune_apart": apart})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published training recipe: AdamW, linear warm-up, then cosine decay to ``min_lr_ratio * lr``.

    The pipelines have a setting of the same name for each field but ``frames``: clips have as many frames as they were
    ingested with, and a plan says where that differs.
    """

    lr: float
    epochs: int
    batch_size: int  # of all workers together
    frames: int = 8
    warmup_epochs: float = 5.0
    min_lr_ratio: float = 0.01
    schedule: Literal["through", "restarted"] = "through"  # the cosine counts from step 0, or from the warm-up's end
    weight_decay: float = 0.001
    no_decay: Literal["none", "biases", "vectors"] = "none"  # parameters without decay; vectors: all of one dimension
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    label_smoothing: float = 0.0
    mixup: float = 0.0  # Beta parameter; with cutmix, one of the two is drawn for each batch
    cutmix: float = 0.0
    crop: Literal["resized", "multiscale", "short_side"] = "resized"  # RandomResizedCrop; ViFi-CLIP's; M2-CLIP's
    randaugment: bool = False
    flip: float = 0.5
    jitter: float = 0.8  # probability of colour jitter
    gray: float = 0.2


class Output(NamedTuple):
    """The result of ``forward``: ``logits`` (B,C), and L2-normalised ``video`` (B,E) and ``text`` (C,E).

    ``text`` is (B,C,E) where it depends on the video; ``extra`` holds what a method's own ``losses`` need.
    """

    logits: Tensor
    video: Tensor
    text: Tensor
    extra: Mapping[str, Tensor] = {}


class Method(nn.Module, ABC):
    """A way to adapt a frozen backbone; its name in the registry is that of its file.

    A subclass returns what trains from ``attach``; all else is frozen. Its modules are attributes of the method, so
    the backbone's state has exactly open_clip's keys.

    Args:
        backbone: a backbone without hooks, for this method alone.
        config: the method's ``Config``; its defaults if None.
        classes: names of the training classes. Methods with a classifier of fixed classes are built for them; the
            others ignore them.

    Raises:
        UserError: the configuration does not fit the backbone, or the backbone has a method already.
    """

    paper: ClassVar[str]
    # Whether the method adds something for which the order of frames matters. It matters to any method on a released
    # ViCLIP, whose temporal table is not zero.
    temporal: ClassVar[bool]
    starts_as_backbone: ClassVar[bool]  # whether it scores like the frozen backbone before the first step
    features_learn: ClassVar[bool] = True  # whether training changes the features of videos or texts
    presets: ClassVar[Mapping[str, Preset]]

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings that every method has; one message names all values that break its rules."""

        template: str = setting("a video of {}.", "class prompt; {} stands for the class name")
        split_names: bool = setting(False, "write glued names as words: ApplyEyeMakeup, left as it is by ViFi-CLIP")
        regularise: Literal["none", "froster", "taco"] = setting(
            "none", "a loss that holds features near a teacher's: FROSTER's distillation or TACO's relations"
        )
        froster_weight: float = setting(2.0, "weight of FROSTER's loss")
        taco_weight: float = setting(0.4, "weight of TACO's loss")
        taco_momentum: float = setting(0.9998, "weight of the past in TACO's teacher; 1: the frozen backbone")
        taco_anchors: int = setting(200, "TACO's random directions in a step")

        def __post_init__(self) -> None:
            if problems := type_problems(self) or [message for holds, message in self.rules() if not holds]:
                raise UserError("; ".join(problems))

        def rules(self) -> list[tuple[bool, str]]:
            """Return each rule as (whether it holds, the message if not); a subclass adds to its parent's."""
            other_braces = set("{}") & set(self.template.replace("{}", ""))
            message = f"template='{self.template}' must hold {{}} once, where the class name goes, and no other braces"
            return [
                (self.template.count("{}") == 1 and not other_braces, message),
                (self.froster_weight > 0, f"froster_weight={self.froster_weight} must be above 0"),
                (self.taco_weight > 0, f"taco_weight={self.taco_weight} must be above 0"),
                (0 <= self.taco_momentum <= 1, f"taco_momentum={self.taco_momentum} must be in [0, 1]"),
                (self.taco_anchors >= 1, f"taco_anchors={self.taco_anchors} must be at least 1"),
            ]

    def __init__(self, backbone: Backbone, config: Config | None = None, classes: Sequence[str] = ()) -> None:
        super().__init__()
        if backbone.has_method:
            raise UserError("this backbone already carries a method; create another backbone for this method")
        backbone.has_method = True
        self.backbone = backbone
        self.config = config if config is not None else self.Config()
        self.trained_classes = tuple(classes)
        self.classes: tuple[str, ...] = ()  # those that forward scores
        self.descriptions: Descriptions | None = None
        self.class_tokens: Tensor | None = None  # (C,L), of the class prompts
        self.given_features: Tensor | None = None  # (C,E); stands in for what ``encode_classes`` computes
        self.class_cache = ClassCache()
        self._cached_descriptions: Descriptions | None = None  # those that the cache was computed from
        learned = [
            p for part in self.attach() for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
        ]
        base = {id(p) for p in backbone.parameters()}
        if any(id(p) in base for p in learned) and not backbone.logit_scale.is_meta:
            _ = backbone.digest  # computed from the weights before they train
        self.requires_grad_(False)
        for parameter in learned:
            parameter.requires_grad_(True)
        self.regulariser = build_regulariser(self)
        if self.regulariser is not None:
            self.register_forward_hook(regularised)

    @abstractmethod
    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Build the modules, add the hooks to the backbone, and return exactly what trains."""

    @property
    def name(self) -> str:
        """Name in the registry: the stem of the file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def description_kinds(self) -> tuple[str, ...]:
        """Kinds of class descriptions ("spatial", "temporal") that training needs with this configuration."""
        return ()

    @property
    def text_learns(self) -> bool:
        """Whether training changes the features of class texts in the output of ``forward``."""
        return not self.backbone.text_is_frozen()

    @property
    def trains_by_cosine(self) -> bool:
        """Whether ``losses`` read the logits of ``forward``: ``cosine_scale`` times cosines of video and text."""
        return True

    @property
    def cosine_scale(self) -> Tensor:
        """Factor of the cosines, 1 / temperature: the backbone's."""
        return self.backbone.logit_scale

    def learning_rate_factors(self) -> list[tuple[nn.Module, float]]:
        """Return parts whose learning rate differs from the recipe's, each with the factor; parts must not overlap."""
        return []

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that ``attach`` returned, and the regulariser's, in a fixed order."""
        return [p for p in self.parameters() if p.requires_grad]

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """Return all tensors but those of the frozen backbone, by name."""
        learned = {name for name, p in self.named_parameters() if p.requires_grad}
        return {k: v for k, v in self.state_dict().items() if k in learned or not k.startswith("backbone.")}

    def load_adapter_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the tensors of an ``adapter_state_dict``.

        Raises:
            UserError: names or shapes differ; the message lists the differences.
        """
        own = self.adapter_state_dict()
        if problems := key_differences(own, state):
            raise UserError(f"these tensors do not fit this {self.name} adapter: {problems}")
        self.load_state_dict(dict(state), strict=False)  # compared strictly above

    def set_classes(self, names: Sequence[str], descriptions: Descriptions | None = None) -> None:
        """Set the classes that ``forward`` scores, in order: at any time, those of training or others.

        Args:
            names: class names.
            descriptions: kind -> class name -> sentences; only training uses them.

        Raises:
            UserError: fewer than two classes, blank, repeated or unprintable names, or prompts longer than the text
                context.
        """
        check_names(names)
        refuse(self.prompt_problems(names))
        if descriptions is not None and descriptions is not self._cached_descriptions:
            self.class_cache.clear()
            self._cached_descriptions = descriptions
        self.classes, self.descriptions = tuple(names), descriptions
        with torch.inference_mode(mode=False):
            self.class_tokens = self.backbone.tokenize([self.class_prompt(name) for name in names])

    def prompt_problems(self, names: Sequence[str]) -> list[str]:
        """Return a message that names the classes whose prompts are longer than the text context, if there are any."""
        long = [name for name in names if not self.backbone.fits(self.class_prompt(name))]
        if not long:
            return []
        where = f"the {self.backbone.spec.context_length} tokens of {self.backbone.spec.name}'s text context"
        return [f"class prompts longer than {where}: {', '.join(long)}; shorten these names"]

    def class_prompt(self, name: str) -> str:
        """Return the text that stands for a class."""
        return prompt(self.name_in_text(name), self.config.template)

    def name_in_text(self, name: str) -> str:
        """Return a class name as it is written in texts: with ``split_names``, ApplyEyeMakeup as three words."""
        return _WORD_STARTS.sub(" ", name) if self.config.split_names else name

    def encode_video(self, frames: Tensor) -> Tensor:
        """Return L2-normalised features (B,E) of normalised frames (B,T,3,H,W)."""
        return unit(self.backbone.encode_video(frames).clip)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Return L2-normalised features (N,E) of free texts, for retrieval; texts are cut at the context length."""
        return unit(self.backbone.encode_text(self.caption_tokens(captions).to(self.backbone.logit_scale.device)))

    def caption_tokens(self, captions: Sequence[str]) -> Tensor:
        """Return token ids (N,L) of captions; long ones lose their last words, not the end token."""
        return self.backbone.tokenize([self.caption_text(caption) for caption in captions])

    def caption_text(self, caption: str) -> str:
        """Return the text that the text tower reads for a caption: free text as it is, without a template."""
        return caption

    def cut_captions(self, captions: Sequence[str]) -> list[str]:
        """Return the captions that are longer than the text context, so that ``encode_captions`` cuts them."""
        return [caption for caption in captions if not self.backbone.fits(self.caption_text(caption))]

    def encode_classes(self) -> Tensor:
        """Return L2-normalised features (C,E) of the class prompts.

        A frozen text tower runs once, for all methods of the process with equal weights and texts. A text tower that
        learns runs at each call, without its frozen first layers; in eval mode and without a graph, it runs again only
        after a parameter has changed.

        Raises:
            UserError: no classes are set.
        """
        if self.given_features is not None:
            return self.given_features
        if self.class_tokens is None:
            raise UserError("no classes are set; call set_classes(names) first")
        if self.backbone.text_is_frozen():
            return self.cached("classes", (), lambda: self.encode_prompts(None))
        prefix = self._frozen_prefix()
        if self.training or torch.is_grad_enabled():
            return self.encode_prompts(prefix)
        return self.cached("classes", self._parameter_state(), lambda: self.encode_prompts(prefix))

    def _frozen_prefix(self) -> TextPrefix | None:
        """Return the activations of the class prompts below the first text layer that learns."""
        layers = self.backbone.frozen_layers("text")
        if not layers:
            return None
        return self.cached("prefix", layers, lambda: self.backbone.text_prefix(self._tokens_on_device(), layers))

    def _parameter_state(self) -> object:
        """Return a value that changes with each trainable parameter.

        It holds their versions and, as fused optimizers do not count versions, their sums.
        """
        learned = self.trainable_parameters()
        sums = torch.stack([p.detach().sum(dtype=torch.float32) for p in learned]).tolist() if learned else []
        return sums, [p._version for p in learned]  # noqa: SLF001 - there is no public form

    def _tokens_on_device(self) -> Tensor:
        assert self.class_tokens is not None
        with torch.inference_mode(mode=False):  # else training could not save them for its backward pass
            self.class_tokens = self.class_tokens.to(self.backbone.logit_scale.device)
        return self.class_tokens

    def encode_prompts(self, prefix: TextPrefix | None) -> Tensor:
        """Return what ``encode_classes`` caches: the features (C,E) of the class prompts, L2-normalised."""
        return unit(self.prompt_features(prefix))

    def prompt_features(self, prefix: TextPrefix | None) -> Tensor:
        """Return features (C,E) of the class prompts, not normalised; ``prefix`` spares the frozen first layers."""
        if self.backbone.text_is_frozen():
            return self.backbone.frozen_text(self._tokens_on_device())
        return self.backbone.encode_text(self._tokens_on_device(), prefix=prefix)

    def cached(self, name: str, state: object, compute: Callable[[], _Value]) -> _Value:
        """Return ``compute()``, run without a graph once for the set classes, their descriptions and a state."""
        scale = self.backbone.logit_scale
        state = (state, scale.device, scale.dtype, torch.is_autocast_enabled(scale.device.type))
        return self.class_cache.get(name, self.classes, state, compute)

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:  # noqa: ARG002 - some methods use them
        """Score clips (B,T,3,H,W) against the classes; training calls this too, also under DDP."""
        video, text = self.encode_video(frames), self.encode_classes()
        return Output(cosine_logits(video, text, self.cosine_scale), video, text)

    def training_losses(self, out: Output, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms that a training step minimises: ``losses``, and the regulariser's for its output."""
        own = self.config.regularise
        return self.losses(out, labels) | ({own: out.extra[own]} if own in out.extra else {})

    def after_step(self) -> None:
        """Follow a step of the optimizer; training calls this."""
        if self.regulariser is not None:
            self.regulariser.after_step(self)

    def losses(self, out: Output, labels: Tensor) -> dict[str, Tensor]:
        """Return weighted loss terms, whose sum is minimised; labels are (B,) indices or (B,C) probabilities."""
        return {"ce": functional.cross_entropy(out.logits, labels)}

    def pair_losses(self, video: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return weighted loss terms of videos (B,E) and the caption of each."""
        return self.pair_terms(video, *self.caption_features(captions))

    def caption_features(self, captions: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the features that ``pair_terms`` needs, each (N,E) for N captions: first ``encode_captions``."""
        return (self.encode_captions(captions),)

    def pair_terms(self, video: Tensor, text: Tensor, *others: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the terms of ``pair_losses`` from features (B,E): InfoNCE in both directions over the rows."""
        return {"contrastive": contrastive_loss(cosine_logits(video, text, self.cosine_scale))}

    def merged(self) -> dict[str, Tensor] | None:
        """Return tensors that make the bare backbone score as this method does; None if there are none such.

        They replace the backbone's of the same names; all others stay as they are.
        """
        return None

    def retrieval_problems(self) -> list[str]:
        """Return why this configuration cannot learn from videos and captions, each reason with what to set instead."""
        if self.config.regularise == "none":
            return []
        return [f"{self.config.regularise} compares classes, and captions are none; set method.regularise=none"]

    def search_problems(self) -> list[str]:
        """Return why texts cannot search this model's videos, each reason with what to set instead.

        None where training, or CLIP's own with towers that stay frozen, made the cosine of ``encode_video`` and
        ``encode_captions`` the score of a video and a text. Videos can always be searched by an example.
        """
        return []


@dataclass(frozen=True)
class Preset:
    """A published setting: the method's configuration and the recipe that trains it."""

    method: Method.Config
    recipe: Recipe


def config_from_plain(cls: type[Method], values: Mapping[str, Any]) -> Method.Config:
    """Build a configuration from JSON values.

    Raises:
        UserError: this version of the method does not have some of the fields.
    """
    known = {f.name for f in dataclasses.fields(cls.Config)}
    if unknown := sorted(set(values) - known):
        raise UserError(
            f"{cls.__module__.rpartition('.')[2]} has no settings {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known))}"
        )
    return cls.Config(**values)


def type_problems(config: Method.Config) -> list[str]:
    """Return a message for each field whose value is not of the declared type."""
    messages = []
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal:
            options = [str(option) for option in get_args(hint)]
            if value not in get_args(hint):
                messages.append(f"{name}='{value}' is not one of {', '.join(options)}{nearest(str(value), options)}")
        elif hint is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                messages.append(f"{name}={value!r} is not a finite number")
        elif type(value) is not hint:
            messages.append(f"{name}={value!r} is not of type {hint.__name__}")
    return messages
