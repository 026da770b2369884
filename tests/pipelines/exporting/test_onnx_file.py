from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.exporting import onnx_file
from vlmodels.errors import UserError


class Small(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 64).to(dtype)

    def forward(self, frames):
        return (self.linear(frames.to(self.linear.weight.dtype)),)


def captured(module):
    shapes = ({0: torch.export.Dim("views")},)
    return torch.export.export(module, (torch.zeros(3, 64, dtype=torch.uint8),), dynamic_shapes=shapes)


@pytest.mark.parametrize("largest", [onnx_file.LARGEST, 1000])
def test_large_weights_lie_beside(largest, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    module = Small()
    files = onnx_file.write_onnx(captured(module), tmp_path / "a.onnx", ["frames"], ["features"], largest=largest)
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert len(files) == (2 if largest == 1000 else 1)
    frames = np.arange(128, dtype=np.uint8).reshape(2, 64)
    (found,) = onnx_file.OnnxModel(tmp_path / "a.onnx")([frames])
    assert found == pytest.approx(module(torch.from_numpy(frames))[0].detach().numpy(), abs=1e-4)


def test_float64_is_refused(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    with pytest.raises(UserError, match="float64"):
        onnx_file.write_onnx(captured(Small(torch.float64)), tmp_path / "a.onnx", ["frames"], ["features"])


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript: pip install -e '.\[export\]'"):
        onnx_file.require_onnx()
