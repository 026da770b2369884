"""Compare what is exported with PyTorch, on several numbers of views and classes."""

# Shapes: B view, T frame, C class, E width of the joint space.

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.exporting.program import VideoProgram, class_features, example_inputs
from vlmodels.errors import UserError
from vlmodels.preprocess import eval_views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from vlmodels.methods.base import Method

    Run = Callable[[Sequence[NDArray]], Sequence[NDArray]]

TOLERANCE = 1e-4
VIEWS = (1, 2, 4)
_OTHER_CLASSES = 7


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs, and the outputs (features, and logits unless the model has no classes) of PyTorch for them."""

    inputs: tuple[NDArray, ...]
    outputs: tuple[NDArray, ...]


@dataclass(frozen=True, slots=True)
class Errors:
    """The largest differences from PyTorch: of L2-normalised features, of probabilities, and of logits.

    The logits' are relative to the largest of them, as their unit is a model's own (cosines times 100, say).
    """

    features: float
    probabilities: float = 0.0
    logits: float = 0.0

    @property
    def largest(self) -> float:
        """The largest of the three; NaN if one is NaN."""
        return float(np.max([getattr(self, field.name) for field in fields(self)]))


@torch.no_grad()
def make_cases(method: Method, program: VideoProgram) -> list[Case]:
    """Return random inputs and what ``method``, which need not be the program's own, makes of them as predictor."""
    found = []
    for number, views in enumerate(VIEWS):
        inputs = example_inputs(program, views, _OTHER_CLASSES, seed=number)
        if program.scoring == "texts" and number == 0:
            inputs[1] = class_features(method)
        # three crops of frames that are as large as a crop are three times the frames: the predictor's own arithmetic
        pictures = eval_views(inputs[0], method.backbone.spec, crops=3)[::3]
        found.append(
            Case(tuple(x.numpy() for x in inputs), tuple(x.numpy() for x in _expected(method, pictures, inputs)))
        )
    return found


def _expected(method: Method, pictures: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    if not method.classes:
        return [method.encode_video(pictures)]
    method.given_features = inputs[1] if len(inputs) > 1 else None
    try:
        out = method(pictures)
    finally:
        method.given_features = None
    return [out.video, out.logits]


def compare(cases: Sequence[Case], run: Run) -> Errors:
    """Return the largest differences between the cases' outputs and those of ``run``."""
    found = []
    for case in cases:
        outputs = [np.asarray(output) for output in run(case.inputs)]
        for output, wanted in zip(outputs, case.outputs, strict=True):
            if output.shape != wanted.shape or output.dtype != np.float32:
                return Errors(np.inf)
        found.append([_distance(outputs[0], case.outputs[0]), 0.0, 0.0])
        if len(outputs) > 1:
            scale = max(1.0, float(np.abs(case.outputs[1]).max()))
            found[-1][1:] = [
                _distance(_softmax(outputs[1]), _softmax(case.outputs[1])),
                _distance(outputs[1], case.outputs[1]) / scale,
            ]
    return Errors(*(float(worst) for worst in np.max(found, axis=0)))


def refuse_differences(errors: Errors, what: str) -> None:
    """Raise UserError if an exported graph does not compute what PyTorch does.

    Raises:
        UserError: the message names the differences.
    """
    if not errors.largest <= TOLERANCE:  # NaN too
        raise UserError(
            f"{what} differs from PyTorch by {errors.features:.1e} (features), {errors.probabilities:.1e} "
            f"(probabilities), {errors.logits:.1e} (logits), more than {TOLERANCE:.0e}; nothing was written"
        )


def _distance(found: NDArray, wanted: NDArray) -> float:
    return float(np.abs(found - wanted).max())


def _softmax(logits: NDArray) -> NDArray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
