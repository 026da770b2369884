"""What export.json says of an exported model: who it is, what goes in, what comes out, and how near to PyTorch."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.exporting.program import input_names, output_names
from vlmodels.preprocess import CROPS
from vlmodels.resize import GRID, WIDEST, stored_short_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.exporting.program import VideoProgram
    from vlmodels.methods.base import Method
    from vlmodels.predictor import Predictor

SCHEMA = 1
KIND = "vidadapt export"
_PACKAGES = ("vidadapt", "torch", "onnx", "onnxscript", "onnxruntime", "open_clip_torch", "numpy")
_LABEL_NOTES = {
    "texts": "pass the features of any classes as class_features (export.py --labels ... --format classes)",
    "classifier": "the graph holds a classifier of these classes; for others, export again with --labels",
    "features": "the model has no classes; export it again with --labels to score some",
}


def identity(method: Method) -> dict[str, Any]:
    """Return the method, its settings and its backbone."""
    spec = method.backbone.spec
    return {
        "method": method.name,
        "paper": method.paper,
        "settings": dataclasses.asdict(method.config),
        "backbone": {
            "name": spec.name,
            "weights": Path(spec.weights).name,  # a tag, or a file
            "digest": method.backbone.digest,
            "statistics": spec.statistics,
            "family": "one sequence of all frames" if spec.joint else "frame by frame",
        },
    }


def contract(program: VideoProgram, predictor: Predictor) -> dict[str, Any]:
    """Return inputs, outputs, preprocessing, views, classes and decision."""
    spec, method = predictor.method.backbone.spec, predictor.method
    height, width = spec.image_size
    shapes = {
        "frames": ["views", spec.frames, height, width, 3],
        "class_features": ["classes", spec.embed_dim],
        "features": ["views", spec.embed_dim],
        "logits": ["views", "classes" if program.scoring == "texts" else len(method.classes)],
    }
    notes = {
        "frames": "RGB, 0 to 255; the graph scales and normalises by mean and std",
        "class_features": "row by row those of classes.npz, unchanged",
        "features": "L2-normalised; a video's is the mean over its views, normalised again",
        "logits": "of each view; a video's probabilities are the mean of softmax(logits / temperature) over its views",
    }

    def described(names: Sequence[str]) -> dict[str, Any]:
        return {
            name: {"dtype": "uint8" if name == "frames" else "float32", "shape": shapes[name], "meaning": notes[name]}
            for name in names
        }

    return {
        "scoring": program.scoring,
        "inputs": described(input_names(program)),
        "outputs": described(output_names(program)),
        "preprocessing": {
            "mean": list(spec.mean),
            "std": list(spec.std),
            "normalised_in_the_graph": True,
            "resize": "bilinear, antialiased, on uint8; first to the stored size, then until it covers the crop's",
            "stored_short_side": stored_short_side(min(height, width)),
            "stored_grid": GRID,
            "widest_aspect": WIDEST,
            "resized_to_cover": [stored_short_side(height), stored_short_side(width)]
            if predictor.crops == 1
            else [height, width],
            "crop": [height, width],
            "crop_places": list(CROPS[predictor.crops]),
        },
        "views": {
            "clips": predictor.clips,
            "crops": predictor.crops,
            "frames": spec.frames,
            "sampling": predictor.sampling,
            "stride": predictor.stride,
        },
        "classes": {
            "names": list(method.classes),
            "trained": list(predictor.classes),
            "others": _LABEL_NOTES[program.scoring],
        },
        "decision": dataclasses.asdict(predictor.decision),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that wrote the files."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
