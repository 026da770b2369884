"""What a method is: hooks on a frozen backbone, a configuration with published presets, and its losses."""

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

from vlmodels.classifier import Descriptions, check_names, contrastive_loss, cosine_logits, prompt, unit
from vlmodels.errors import UserError, nearest, refuse
from vlmodels.weights import key_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vlmodels.backbone import Backbone, TextPrefix

_Kept = TypeVar("_Kept")
_GLUED = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_KEPT_AT_MOST = 16  # features, of a few lists of classes


def setting(
    default: Any, text: str, tune: Mapping[str, Any] | None = None, *, apart: Mapping[str, Any] | None = None
) -> Any:
    """A field of a method's ``Config``: its default, help text and what a sweep may try.

    Args:
        default: the field's default.
        text: its help text.
        tune: what a search tries: {"choice": values}, {"loguniform": (low, high)} or {"uniform": (low, high)};
            {"layers": tower}, a range of the tower's blocks; or {"depth": tower}, how many of its first or last
            blocks, from 1. A tower is "video", "text", or "both": the shallower of the two. None: left as it is.
        apart: what a search of where to insert tries instead of ``tune`` if it varies the towers separately.
    """
    return field(default=default, metadata={"help": text, "tune": tune, "tune_apart": apart})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published way to train: AdamW, linear warm-up, then cosine decay to ``min_lr_ratio * lr``.

    ``pipelines/config/schema.py`` has a setting of the same name for each field but ``frames``: clips have as many
    frames as they were ingested with, and a plan says where that differs.
    """

    lr: float
    epochs: int
    batch_size: int  # of all workers together
    frames: int = 8
    warmup_epochs: float = 5.0
    min_lr_ratio: float = 0.01
    schedule: Literal["through", "restarted"] = "through"  # the cosine counts from step 0, or from the warm-up's end
    weight_decay: float = 0.001
    no_decay: Literal["none", "biases", "vectors"] = "none"  # what is not decayed; vectors: all of one dimension
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
    """What ``forward`` gives: ``logits`` (B,C), and L2-normalised ``video`` (B,E) and ``text`` (C,E).

    ``text`` is (B,C,E) where it depends on the video; ``extra`` is for a method's own ``losses``.
    """

    logits: Tensor
    video: Tensor
    text: Tensor
    extra: Mapping[str, Tensor] = {}


class Method(nn.Module, ABC):
    """A way to adapt a frozen backbone; the registry knows it by its file's name.

    A subclass declares what trains by returning it from ``attach``; all else is frozen. Its modules live in
    the method under their own names; the backbone's state keeps exactly the keys of open_clip.

    Args:
        backbone: a backbone without hooks; the method keeps it.
        config: the method's ``Config``; its defaults if None.
        classes: names of the classes that it trains on. Methods with a classifier of fixed classes are built for
            them; the others do not look.

    Raises:
        UserError: the configuration does not fit the backbone.
    """

    paper: ClassVar[str]
    temporal: ClassVar[bool]  # whether the order of frames matters
    starts_as_backbone: ClassVar[bool]  # whether nothing is changed before the first step
    presets: ClassVar[Mapping[str, Preset]]

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings that every method has; values that break its rules are refused, all in one message."""

        template: str = setting("a video of {}.", "class prompt; {} stands for the class name")
        split_names: bool = setting(False, "write glued names as words: ApplyEyeMakeup, left as it is by ViFi-CLIP")

        def __post_init__(self) -> None:
            if wrong := wrong_types(self) or [message for holds, message in self.rules() if not holds]:
                raise UserError("; ".join(wrong))

        def rules(self) -> list[tuple[bool, str]]:
            """What must hold, each with the message if it does not; a subclass adds to its parent's."""
            once = self.template.count("{}") == 1 and not set("{}") & set(self.template.replace("{}", ""))
            said = f"template='{self.template}' must hold {{}} once, where the class name goes, and no other braces"
            return [(once, said)]

    def __init__(self, backbone: Backbone, config: Config | None = None, classes: Sequence[str] = ()) -> None:
        super().__init__()
        if backbone.taken:
            raise UserError("this backbone already carries a method; create another one for this method")
        backbone.taken = True
        self.backbone = backbone
        self.config = config if config is not None else self.Config()
        self.trained_classes = tuple(classes)
        self.classes: tuple[str, ...] = ()  # those that are set
        self.descriptions: Descriptions | None = None
        self._tokens: Tensor | None = None
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[object, Any]] = {}
        self._described: Descriptions | None = None  # those that anything was computed from
        learned = [
            p for part in self.attach() for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
        ]
        base = {id(p) for p in backbone.parameters()}
        if any(id(p) in base for p in learned) and not backbone.logit_scale.is_meta:
            _ = backbone.digest  # of the weights as they came, before they train
        self.requires_grad_(False)
        for parameter in learned:
            parameter.requires_grad_(True)

    @abstractmethod
    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Build the modules, put the hooks in place, and return exactly what trains."""

    @property
    def name(self) -> str:
        """The registry's name: the file's stem."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def description_kinds(self) -> tuple[str, ...]:
        """Kinds of class descriptions that training needs with this configuration."""
        return ()

    def learning_rate_factors(self) -> list[tuple[nn.Module, float]]:
        """Parts that train at another rate than the recipe's, each with the factor; parts must not overlap."""
        return []

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What ``attach`` declared, in a fixed order."""
        return [p for p in self.parameters() if p.requires_grad]

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """Everything that is not the untouched backbone, by name."""
        learned = {name for name, p in self.named_parameters() if p.requires_grad}
        return {k: v for k, v in self.state_dict().items() if k in learned or not k.startswith("backbone.")}

    def load_adapter_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what ``adapter_state_dict`` gave.

        Raises:
            UserError: names or shapes differ; lists the difference.
        """
        own = self.adapter_state_dict()
        if problems := key_differences(own, state):
            raise UserError(f"these tensors are not of this {self.name} adapter: {problems}")
        self.load_state_dict(dict(state), strict=False)  # the strict comparison was just made

    def set_classes(self, names: Sequence[str], descriptions: Descriptions | None = None) -> None:
        """Set the classes that ``forward`` scores, in order; at any time, also other ones than in training.

        Args:
            names: class names.
            descriptions: kind -> class name -> sentences; only training looks at them.

        Raises:
            UserError: fewer than two classes, blank or repeated names, prompts that the context has no room for.
        """
        check_names(names)
        refuse(self.overflow(names))
        if descriptions is not None and descriptions is not self._described:
            self._kept.clear()
            self._described = descriptions
        self.classes, self.descriptions = tuple(names), descriptions
        with torch.inference_mode(mode=False):
            self._tokens = self.backbone.tokenize([self.class_prompt(name) for name in names])

    def overflow(self, names: Sequence[str]) -> list[str]:
        """A message if the text context has no room for these classes' prompts, else nothing."""
        long = [name for name in names if not self.backbone.fits(self.class_prompt(name))]
        if not long:
            return []
        where = f"the {self.backbone.spec.context_length} tokens of {self.backbone.spec.name}'s text context"
        return [f"class prompts longer than {where}: {', '.join(long)}; shorten these names"]

    def class_prompt(self, name: str) -> str:
        """The text that stands for a class."""
        return prompt(self.said(name), self.config.template)

    def said(self, name: str) -> str:
        """A class name as texts have it."""
        return _GLUED.sub(" ", name) if self.config.split_names else name

    def encode_video(self, frames: Tensor) -> Tensor:
        """L2-normalised features (B,E) of normalised frames (B,T,3,H,W)."""
        return unit(self.backbone.encode_video(frames).clip)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """L2-normalised features (N,E) of free texts, as retrieval needs them; cut at the context length."""
        return unit(self.backbone.encode_text(self.caption_tokens(captions).to(self.backbone.logit_scale.device)))

    def caption_tokens(self, captions: Sequence[str]) -> Tensor:
        """Token ids (N,L) of captions."""
        return self.backbone.tokenize(captions)

    def encode_classes(self) -> Tensor:
        """L2-normalised features (C,E) of the class prompts.

        A frozen text tower is run once, for all methods of a process that ask it the same. One that learns is run at
        each call with a graph, but for its layers below the first that learns; without a graph, in eval mode, once
        for as long as no parameter changes.
        """
        if self._tokens is None:
            raise UserError("no classes are set; call set_classes(names) first")
        if self.backbone.text_is_frozen():
            return self._keep("classes", (), lambda: self._encode_tokens(None))
        below = self.backbone.frozen_layers("text")
        prefix = (
            self._keep("prefix", below, lambda: self.backbone.text_prefix(self._placed(), below)) if below else None
        )
        if self.training or torch.is_grad_enabled():
            return self._encode_tokens(prefix)
        return self._keep("classes", self._fingerprint(), lambda: self._encode_tokens(prefix))

    def _fingerprint(self) -> object:
        """Changes when a trainable parameter does: its version, and as fused optimizers do not count, its sum."""
        learned = self.trainable_parameters()
        sums = torch.stack([p.detach().sum(dtype=torch.float32) for p in learned]).tolist() if learned else []
        return sums, [p._version for p in learned]  # noqa: SLF001 - there is no public form

    def _placed(self) -> Tensor:
        assert self._tokens is not None
        with torch.inference_mode(mode=False):  # else training could not save them for its backward pass
            self._tokens = self._tokens.to(self.backbone.logit_scale.device)
        return self._tokens

    def _encode_tokens(self, prefix: TextPrefix | None) -> Tensor:
        return unit(self._text_features(prefix))

    def _text_features(self, prefix: TextPrefix | None) -> Tensor:
        """Features (C,E) of the class prompts, not normalised."""
        if self.backbone.text_is_frozen():
            return self.backbone.frozen_text(self._placed())
        return self.backbone.encode_text(self._placed(), prefix=prefix)

    def _keep(self, what: str, state: object, compute: Callable[[], _Kept]) -> _Kept:
        """Compute without a graph, once for the set classes and a state of things; other descriptions end it."""
        scale, place = self.backbone.logit_scale, (what, self.classes)
        key = (state, scale.device, scale.dtype, torch.is_autocast_enabled(scale.device.type))
        if place not in self._kept or self._kept[place][0] != key:
            with (
                torch.inference_mode(mode=False),
                torch.no_grad(),
            ):  # usable in training wherever it was computed
                self._kept.pop(place, None)
                self._kept[place] = (key, compute())
            while len(self._kept) > _KEPT_AT_MOST:
                self._kept.pop(next(iter(self._kept)))
        kept: _Kept = self._kept[place][1]
        return kept

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:  # noqa: ARG002 - some methods look
        """Score clips (B,T,3,H,W) against the classes; train through this call, also under DDP."""
        video, text = self.encode_video(frames), self.encode_classes()
        return Output(cosine_logits(video, text, self.backbone.logit_scale), video, text)

    def losses(self, out: Output, labels: Tensor) -> dict[str, Tensor]:
        """Weighted loss terms whose sum is minimised; labels are (B,) indices or (B,C) probabilities."""
        return {"ce": functional.cross_entropy(out.logits, labels)}

    def pair_losses(self, video: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        """Weighted loss terms of videos (B,E) and the caption of each."""
        return self.pair_terms(video, *self.caption_features(captions))

    def caption_features(self, captions: Sequence[str]) -> tuple[Tensor, ...]:
        """What ``pair_terms`` needs of captions, each (N,E) with a row for each caption: first ``encode_captions``."""
        return (self.encode_captions(captions),)

    def pair_terms(self, video: Tensor, text: Tensor, *others: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """As ``pair_losses``, of the captions' features: InfoNCE both ways over the rows, wherever they come from."""
        return {"contrastive": contrastive_loss(cosine_logits(video, text, self.backbone.logit_scale))}

    def retrieval_problems(self) -> list[str]:
        """Why this configuration cannot learn from pairs of videos and captions, each with what to set instead."""
        return []


@dataclass(frozen=True)
class Preset:
    """One published setting: the method's configuration and the recipe that trained it."""

    method: Method.Config
    recipe: Recipe


def config_from_plain(cls: type[Method], values: Mapping[str, Any]) -> Method.Config:
    """Rebuild a configuration from JSON values.

    Raises:
        UserError: fields that this version of the method does not know.
    """
    known = {f.name for f in dataclasses.fields(cls.Config)}
    if unknown := sorted(set(values) - known):
        raise UserError(
            f"{cls.__module__.rpartition('.')[2]} has no settings {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known))}"
        )
    return cls.Config(**values)


def wrong_types(config: Method.Config) -> list[str]:
    """Messages for the fields whose values are not of the declared type."""
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
