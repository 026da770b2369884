"""The function that is exported: uint8 views in, features and logits out, and its capture by ``torch.export``."""

# Shapes: B view, T frame, H W pixel row and column, C class, E width of the joint space.

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from vlmodels.classifier import unit
from vlmodels.methods.base import Method

if TYPE_CHECKING:
    from collections.abc import Sequence

Scoring = Literal["texts", "classifier", "features"]
"""What scores: features of classes, an input of the graph; a classifier of fixed classes; or nothing, as the model has
no classes."""
_VIEWS, _CLASSES = 3, 5
"""Sizes of the views and classes that are traced; any others run. They differ, and neither is 1, as torch.export would
else take them for equal, or for constants."""


class VideoProgram(nn.Module):
    """A method as a function of tensors alone.

    Args:
        method: in eval mode, with its classes set unless ``scoring`` is "features".
        scoring: what scores (``scoring_of``).
    """

    mean: Tensor
    std: Tensor
    classes: Tensor

    def __init__(self, method: Method, scoring: Scoring) -> None:
        super().__init__()
        self.method, self.scoring = method, scoring
        for name in ("mean", "std"):
            values = rearrange(torch.tensor(getattr(method.backbone.spec, name)), "c -> c 1 1")
            self.register_buffer(name, values, persistent=False)
        classes = class_features(method) if scoring == "classifier" else torch.empty(0)
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, frames: Tensor, class_features: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return L2-normalised features (B,E), and logits (B,C) unless the model has no classes.

        Args:
            frames: uint8 RGB views (B,T,H,W,3) of the backbone's size.
            class_features: features (C,E) of the classes, where texts score.
        """
        pictures = rearrange(frames, "b t h w c -> b t c h w")
        views = (pictures.float() / 255 - self.mean) / self.std  # as ``eval_views``
        if self.scoring == "features":
            return (self.method.encode_video(views),)
        self.method.given_features = self.classes if self.scoring == "classifier" else class_features
        try:
            out = self.method(views)
        finally:
            self.method.given_features = None
        return out.video, out.logits


def class_features(method: Method) -> Tensor:
    """Return the features (C,E) of the set classes that ``Method.given_features`` stands in for.

    They are L2-normalised, except OmniCLIP's, to which it adds prompts made of the video.
    """
    with torch.no_grad():
        return Method.encode_classes(method).float().clone()  # not the override, which may normalise


@torch.no_grad()
def scoring_of(method: Method) -> Scoring:
    """Return what scores a method's classes: features of texts, or a classifier that knows the trained names."""
    if not method.classes:
        return "features"
    names = method.trained_classes
    if not names:
        return "texts"
    spec, chosen = method.backbone.spec, method.classes
    views = torch.zeros(1, spec.frames, 3, *spec.image_size)
    generator = torch.Generator().manual_seed(0)
    try:
        method.given_features = unit(torch.randn(len(names), spec.embed_dim, generator=generator))
        found = []
        for asked in (names, tuple(f"not {name}" for name in names)):
            method.classes = asked  # the features are given, so the names matter to a classifier only
            found.append(method(views).logits)
    finally:
        method.classes, method.given_features = chosen, None
    return "texts" if torch.equal(*found) else "classifier"


def example_inputs(program: VideoProgram, views: int = _VIEWS, classes: int = _CLASSES, seed: int = 0) -> list[Tensor]:
    """Return random inputs of a program: frames uint8 (B,T,H,W,3), and class features (C,E) where it takes them."""
    spec = program.method.backbone.spec
    generator = torch.Generator().manual_seed(seed)
    # blocks of colour with noise: pure noise would look alike to a model, whatever the seed
    blocks = torch.randint(200, (views, spec.frames, 4, 4, 3), generator=generator)
    rows, columns = (torch.arange(size) * 4 // size for size in spec.image_size)
    frames = blocks[:, :, rows][:, :, :, columns]
    frames = (frames + torch.randint(56, frames.shape, generator=generator)).to(torch.uint8)
    if program.scoring != "texts":
        return [frames]
    return [frames, unit(torch.randn(classes, spec.embed_dim, generator=generator))]


def input_names(program: VideoProgram) -> list[str]:
    """Return the names of a program's inputs, in order."""
    return ["frames", "class_features"] if program.scoring == "texts" else ["frames"]


def output_names(program: VideoProgram) -> list[str]:
    """Return the names of a program's outputs, in order."""
    return ["features"] if program.scoring == "features" else ["features", "logits"]


@torch.no_grad()
def capture(program: VideoProgram) -> ExportedProgram:
    """Return the program's graph, with any number of views and, where texts score, of classes."""
    program.requires_grad_(False)
    sizes: Sequence[dict[int, Dim]] = [{0: Dim("views")}, {0: Dim("classes")}]
    inputs = example_inputs(program)
    captured = torch.export.export(program, tuple(inputs), dynamic_shapes=tuple(sizes[: len(inputs)]), strict=False)
    _drop_unused(captured)
    for module in captured.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    return captured


def _drop_unused(captured: ExportedProgram) -> None:
    """Remove the tensors that the graph does not read, such as those of the text tower, which would be saved too."""
    specs = {spec.arg.name: spec for spec in captured.graph_signature.input_specs}
    for node in captured.graph.find_nodes(op="placeholder"):
        spec = specs[node.name]
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and not node.users:
            captured.graph.erase_node(node)
            captured.graph_signature.input_specs.remove(spec)
            captured.state_dict.pop(spec.target, None)
            captured.constants.pop(spec.target, None)  # buffers that are in no state
    captured.graph_module.recompile()
