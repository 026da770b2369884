from __future__ import annotations

import numpy as np
import pytest

from pipelines.exporting.check import Case, Errors, compare, refuse_differences
from vlmodels.errors import UserError

FEATURES = np.eye(2, dtype=np.float32)
LOGITS = np.array([[40, 0], [0, 20]], np.float32)
CASE = Case((), (FEATURES, LOGITS))


def test_equal_outputs_have_no_errors():
    assert compare([CASE, CASE], lambda _: (FEATURES, LOGITS)).largest == 0


@pytest.mark.parametrize(
    ("features", "logits"),
    [
        (FEATURES + np.float32(2e-4), LOGITS),
        (FEATURES, LOGITS * np.float32(1.0002)),  # the probabilities are 0 and 1 either way
        (FEATURES, LOGITS[:, ::-1].copy()),
        (FEATURES * np.float32(np.nan), LOGITS),
        (FEATURES, LOGITS + np.float32(np.nan)),
        (FEATURES, LOGITS[:, :1]),
        (FEATURES.astype(np.float64), LOGITS),
    ],
)
def test_each_difference_is_refused(features, logits):
    with pytest.raises(UserError, match=r"video\.onnx differs from PyTorch"):
        refuse_differences(compare([CASE], lambda _: (features, logits)), "video.onnx")


def test_the_worst_case_counts():
    outputs = iter([(FEATURES, LOGITS), (FEATURES + np.float32(0.5), LOGITS), (FEATURES, LOGITS)])
    assert compare([CASE] * 3, lambda _: next(outputs)).features == pytest.approx(0.5)


def test_small_differences_pass():
    refuse_differences(Errors(9e-5, 9e-5, 9e-5), "video.onnx")
