"""Tables of backbones in Markdown: sizes, costs and published scores of each, and which method runs on which family.

Everything is counted and tried, on the meta device or at toy size; no weights are needed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from vlmodels import methods, published, viclip
from vlmodels.backbone import Backbone
from vlmodels.catalogue import config_of, entry, family
from vlmodels.clip import TOY, create, names
from vlmodels.describe import gmacs, placeholders
from vlmodels.errors import UserError
from vlmodels.heads import ClassHead
from vlmodels.layout import split_tokens
from vlmodels.matrix import markdown
from vlmodels.methods.base import Method
from vlmodels.tokenizers import WordCounter
from vlmodels.toy import TOY_CONFIG
from vlmodels.weight_files import build

if TYPE_CHECKING:
    from vlmodels.clip_context import ClipContext
    from vlmodels.sites import Hook
    from vlmodels.tokenizers import Tokenizer

FRAMES = 8
MAIN = (  # one for each size of the families that people use
    "ViT-B-32-quickgelu",
    "ViT-B-16-quickgelu",
    "ViT-L-14-quickgelu",
    "ViT-L-14-336-quickgelu",
    "ViT-H-14-quickgelu",
    "ViT-bigG-14",
    "ViCLIP-B-16",
    "ViCLIP-L-14",
    "ViT-H-14-worldwide",
    "ViT-L-14-CLIPA",
    "ViT-H-14-CLIPA",
    "ViT-B-16-SigLIP2",
    "ViT-L-16-SigLIP2-256",
    "ViT-SO400M-14-SigLIP2",
    "ViT-gopt-16-SigLIP2-256",
    "PE-Core-T-16-384",
    "PE-Core-S-16-384",
    "PE-Core-B-16",
    "PE-Core-L-14-336",
    "PE-Core-bigG-14-448",
    "EVA02-B-16",
    "EVA02-L-14",
    "EVA02-E-14",
    "MobileCLIP2-B",
    "MobileCLIP2-L-14",
    "ViTamin-S",
    "ViTamin-B",
    "ViTamin-L",
    "xlm-roberta-base-ViT-B-32",
)
_DATASETS = {"K400": "K400", "UCF101": "UCF-101", "HMDB51": "HMDB-51"}
_HUGGING_FACE = "Hugging Face text"
_ONE_OF_EACH = (  # the families of the second table, by one backbone
    "ViT-B-16-quickgelu",
    "ViCLIP-B-16",
    "ViT-H-14-worldwide",
    "ViT-L-14-CLIPA",
    "ViT-B-16-SigLIP2",
    "PE-Core-B-16",
    "EVA02-B-16",
    "MobileCLIP2-B",
    "ViTamin-B",
    "xlm-roberta-base-ViT-B-32",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """Parameters of the image tower and of the text tower (None: Hugging Face's), and GMACs of 8 frames."""

    image: int
    text: int | None
    gmacs: float


# Sizes


def sizes_table(which: str = "main") -> str:
    """Return a row for each of the main backbones, or for "all" of them but the toys."""
    shown = MAIN if which == "main" else [name for name in names() if family(name) != "toy"]
    header = ["backbone", "family", "parameters", "GMACs", "frame", "context", "weights", *_DATASETS.values(), "source"]
    return markdown(header, [size_row(name) for name in shown])


def size_row(name: str) -> list[str]:
    """Return a backbone's row of ``sizes_table``."""
    facts, size = entry(name), size_of(name)
    text = "+ text" if size.text is None else f"+ {_millions(size.text)}"
    return [
        name,
        facts.family,
        f"{_millions(size.image)} {text}",
        f"{size.gmacs:,.1f}",
        str(facts.frame_size),
        str(facts.context),
        _some(facts.weights),
        *_scores(name),
    ]


@functools.cache
def size_of(name: str) -> Size:
    """Count a backbone's parameters and costs on the meta device.

    Towers of Hugging Face are left out: their configuration comes from the hub.
    """
    with torch.device("meta"):
        if family(name) == _HUGGING_FACE:
            backbone = _beside_stand_in(config_of(name), name, WordCounter())
        else:
            backbone = create(name, weights=None, num_frames=FRAMES, tokenizer=WordCounter())
        image = sum(p.numel() for name, p in backbone.model.named_parameters() if name.startswith("visual."))
        total = sum(p.numel() for p in backbone.parameters())
        clip = torch.empty(1, FRAMES, 3, *backbone.spec.image_size)
    text = None if family(name) == _HUGGING_FACE else total - image
    return Size(image, text, gmacs(lambda frames: backbone.encode_video(frames).clip, clip))


def _beside_stand_in(config: Mapping[str, Any], name: str, tokenizer: Tokenizer) -> Backbone:
    """Build the image tower of a configuration, beside a stand-in of a text tower of Hugging Face."""
    model: Any = build({**config, "text_cfg": {"layers": 1, "width": 64, "vocab_size": 100}, "custom_text": True})
    model.text = HFTextEncoder(int(config["embed_dim"]))
    return Backbone(model, tokenizer, name=name, frames=FRAMES)


class HFTextEncoder(nn.Module):
    """Stands in for open_clip's class of this name, which asks the hub for its sizes: the parts that its view reads."""

    def __init__(self, embed_dim: int, width: int = 32) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            model_type="xlm-roberta", hidden_size=width, num_hidden_layers=2, num_attention_heads=2
        )
        self.transformer = _Layers(width)
        self.proj = nn.Linear(width, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return features (C,E) of token ids (C,L)."""
        out: Tensor = self.proj(self.transformer(tokens).mean(dim=1))
        return out


class _Layers(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.layer = nn.Embedding(100, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.layer(self.words(tokens))
        return out

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _some(tags: tuple[str, ...]) -> str:
    """Return the first two tags, and how many others there are."""
    shown = ", ".join(f"`{tag}`" for tag in tags[:2]) or "-"
    return shown if len(tags) <= 2 else f"{shown} and {len(tags) - 2} more"


def _scores(name: str) -> list[str]:
    """Return the cells of a backbone's published scores, and of their sources."""
    known = [score for score in published.zero_shot_scores() if score.backbone == name and score.dataset in _DATASETS]
    cells = [", ".join(s.value for s in known if s.dataset == dataset) or "-" for dataset in _DATASETS]
    sources = dict.fromkeys(f"{s.source} ({s.remark})" if s.remark else s.source for s in known)
    return [*cells, "; ".join(sources) or "-"]


# Methods and families


def families_table() -> str:
    """Return a table method x family: "yes", what a method does otherwise there, or "no" with the reason below.

    *one sequence*: its parts in time act on the one sequence of all frames, whose class token is the clip's.
    *patches*: what it does to the class token has no place, so it acts on the patches alone. *pooled token*: its
    classifier reads what the tower pools, instead of a class token. ``setting=value``: with this setting.
    """
    rows, reasons = [], dict[str, int]()
    for name in methods.names():
        cells = [cell(name, backbone) for backbone in _ONE_OF_EACH]
        rows.append([f"`{name}`", *(_noted(found, reasons) for found in cells)])
    table = markdown(["method", *(family(backbone) for backbone in _ONE_OF_EACH)], rows)
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([table, *([""] if notes else []), *notes])


def _noted(found: str, reasons: dict[str, int]) -> str:
    """Return a cell with the number of its reason in place of the reason."""
    shown, _, reason = found.partition(": ")
    return f"{shown} ({reasons.setdefault(reason, len(reasons) + 1)})" if reason else shown


def cell(method: str, backbone: str) -> str:
    """Return what becomes of a method on a backbone's family, by attaching it; a reason follows ``no: ``."""
    if family(backbone) == _HUGGING_FACE:
        return _on_hugging_face(methods.get(method))
    return _tried(lambda: _differences(method, backbone))


def _tried(attach: Callable[[], str]) -> str:
    try:
        return attach()
    except UserError as error:
        return f"no: {error}"


def _differences(name: str, backbone_name: str) -> str:
    """Attach a method on the meta device, run a clip and a text, and say what differs from CLIP.

    Raises:
        UserError: the method cannot be attached.
    """
    cls = methods.get(name)
    with torch.device("meta"):
        model, context = _short(backbone_name)
        backbone = Backbone(model, WordCounter(), name=backbone_name, frames=FRAMES)
        method = cls(backbone, cls.Config(), placeholders()).eval()
        method.encode_video(torch.empty(1, FRAMES, 3, *backbone.spec.image_size))
        backbone.encode_text(torch.empty(1, context, dtype=torch.long))
    words = []
    if backbone.spec.joint and method.temporal:
        words.append("one sequence")
    if not backbone.spec.prefix and changes_the_class_token(name):
        words.append("patches")
    if not backbone.reads_class_token and any(isinstance(part, ClassHead) for part in method.modules()):
        words.append("pooled token")
    return ", ".join(words) or "yes"


@functools.cache
def _short(name: str) -> tuple[Any, int]:
    """Build a backbone's model with two layers a tower, for all methods, and return it with its context length."""
    config = config_of(name)
    own = {part: {**config[part], "layers": 2} for part in ("vision_cfg", "text_cfg")}
    model: Any = viclip.build({**config, **own}) if name in viclip.BASES else build({**config, **own})
    if hasattr(model.visual, "trunk"):  # timm knows a tower by its name alone
        model.visual.trunk.blocks = model.visual.trunk.blocks[:2]
    return model, entry(name).context


@functools.cache
@torch.no_grad()
def changes_the_class_token(name: str) -> bool:
    """Return whether a method that takes frames apart also does something to class tokens: tried on the toy."""
    cls = methods.get(name)
    if not cls.temporal:
        return False  # it does the same to every token
    backbone = create(TOY, weights=None, num_frames=2)
    changed: list[bool] = []
    add = backbone.add

    def recorded(tower: Any, layer: int, site: Any, hook: Hook) -> None:
        def run(x: Tensor, context: ClipContext) -> Tensor:
            out = hook(x, context)
            if tower == "video":
                before = torch.zeros_like(out) if site.startswith("parallel") else x
                prefix = split_tokens(out, context).prefix
                changed.append(not torch.equal(prefix, split_tokens(before, context).prefix))
            return out

        add(tower, layer, site, run)

    backbone.add = recorded  # type: ignore[method-assign]
    method = cls(backbone, cls.Config(), placeholders()).eval()
    for parameter in method.trainable_parameters():
        parameter.normal_(std=0.1)  # some start as nothing
    method.encode_video(torch.randn(1, 2, 3, *backbone.spec.image_size))
    return any(changed)


def _on_hugging_face(cls: type[Method]) -> str:
    """Train a method for a step on a toy image tower beside a stand-in of a Hugging Face text tower.

    Where its defaults are refused, single settings are changed, as long as each brings it further.
    """
    chosen: dict[str, Any] = {}
    reason = _refused_there(cls, chosen)
    first = reason
    while reason:
        better = next(
            (
                (changes, after)
                for changes in _changes(cls, chosen)
                if (after := _refused_there(cls, changes)) != reason and after is not None
            ),
            None,
        )
        if better is None:
            return f"no: {first}"
        chosen, reason = better
    return ", ".join(f"`{name}={value}`" for name, value in chosen.items()) or "yes"


def _changes(cls: type[Method], chosen: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield the chosen settings with one more: another literal, another value that sweeps try, or 0.

    Settings that every method has, such as a regulariser, do not decide where it acts.
    """
    hints = get_type_hints(cls.Config)
    shared = {setting.name for setting in dataclasses.fields(Method.Config)}
    for setting in (setting for setting in dataclasses.fields(cls.Config) if setting.name not in shared):
        hint, tune = hints[setting.name], setting.metadata.get("tune") or {}
        values = list(get_args(hint)) if get_origin(hint) is Literal else list(tune.get("choice", ()))
        values += [hint(0)] if hint in (int, float) else []
        for value in values:
            if setting.name not in chosen and value != setting.default:
                yield {**chosen, setting.name: value}


def _refused_there(cls: type[Method], settings: Mapping[str, Any]) -> str | None:
    """Return why settings are refused, "" if they train, and None if they break a rule or leave nothing to train."""
    classes = ["a", "b"]
    try:
        config = cls.Config(**settings)
    except UserError:
        return None
    backbone = _beside_stand_in(TOY_CONFIG, _ONE_OF_EACH[-1], _Ids())
    try:
        method = cls(backbone, config, classes).train()
        if settings and not method.trainable_parameters():
            return None
        described = {kind: {name: [name] for name in classes} for kind in method.description_kinds}
        method.set_classes(classes, described)
        labels = torch.tensor([0, 1])
        method.losses(method(torch.randn(2, 2, 3, *backbone.spec.image_size), labels), labels)
    except UserError as error:
        return str(error)
    return ""


class _Ids(WordCounter):
    """A tokenizer with a number for each word."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Return token ids (C, context length): the lengths of words, 0 behind the last."""
        rows = [[len(word) for word in text.split()] for text in texts]
        return torch.tensor([row + [0] * (self.context_length - len(row)) for row in rows])
