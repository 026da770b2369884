"""Twenty training steps of every method on both backbone families give the losses on record.

A change of these numbers is a change of what is computed. Where it is meant, run this file with WRITE_GOLDEN=1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torch import nn

from tests.helpers.tiny_clip import tiny_method, train
from vlmodels import methods

RECORD = Path(__file__).parent / "golden_losses.json"
TRAINING = [name for name in methods.names() if tiny_method(methods.get(name)).trainable_parameters()]


def losses(name, *, joint):
    method = tiny_method(methods.get(name), joint=joint)
    for module in method.modules():  # what is dropped out depends on the machine's generator
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return train(method, 20)


@pytest.mark.parametrize("joint", [False, True], ids=["clip", "viclip"])
@pytest.mark.parametrize("name", TRAINING)
def test_losses_are_those_on_record(name, joint):
    """To two parts in a thousand: fp32 on a CPU, whose kernels differ between machines."""
    key, found = f"{name} {'viclip' if joint else 'clip'}", losses(name, joint=joint)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if os.environ.get("WRITE_GOLDEN"):
        record[key] = [round(loss, 5) for loss in found]
        RECORD.write_text("{\n" + ",\n".join(f'"{k}": {v}' for k, v in sorted(record.items())) + "\n}\n")
    assert found == pytest.approx(record[key], rel=2e-3)


def test_every_method_is_on_record():
    assert {key.partition(" ")[0] for key in json.loads(RECORD.read_text())} == set(TRAINING)
