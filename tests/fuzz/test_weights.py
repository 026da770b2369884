"""Damaged adapters and weight archives: the right values, or one line."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.damage import changed, damaged, deadline, seeded
from tests.helpers.tiny_clip import disturb, tiny_backbone, tiny_method
from vlmodels.checkpoint import about_adapter, load_adapter, load_tensors, save_adapter, save_tensors
from vlmodels.errors import UserError
from vlmodels.methods.adaptformer import AdaptFormer
from vlmodels.weights import read_weights


class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(12.0).reshape(4, 3).half())
        self.register_buffer("bias", torch.arange(5.0)[1:3])
        self.attn_mask = torch.zeros(2)

    def forward(self, x):
        return x


FOLDER = Path(tempfile.mkdtemp(prefix="vidadapt-fuzz-"))
METHOD = disturb(tiny_method(AdaptFormer, AdaptFormer.Config(dims=4)))
ADAPTER = save_adapter(FOLDER, METHOD)
WHOLE = ADAPTER.read_bytes()
FACTS = json.loads(about_adapter(WHOLE).to_json())
STATE = {name: value.clone() for name, value in METHOD.adapter_state_dict().items()}
torch.save(
    {"state_dict": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3).half()}, "epoch": 3}, FOLDER / "saved.pt"
)
torch.jit.save(torch.jit.script(torch.nn.Sequential(Part(), Part())), FOLDER / "script.pt")
EXPECTED = {name: read_weights(FOLDER / name)[0] for name in ("saved.pt", "script.pt")}


def one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 2000


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def load_case(path: Path) -> None:
    try:
        with deadline():
            found = load_adapter(path, tiny_backbone())
    except UserError as error:
        one_line(error)
    else:
        assert same(found.method.adapter_state_dict(), STATE)


@seeded
@given(damaged(WHOLE))
def test_adapters_with_damaged_bytes(content):
    path = FOLDER / "damaged" / "adapter.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    load_case(path)


@seeded
@given(changed(FACTS))
def test_adapters_with_changed_metadata(facts):
    path = FOLDER / "changed" / "adapter.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_tensors(path, load_tensors(ADAPTER), {"vidadapt": json.dumps(facts)})
    load_case(path)


def read_case(content: bytes, name: str, *, exact: bool) -> None:
    path = FOLDER / "case.pt"
    path.write_bytes(content)
    try:
        with deadline():
            found, _ = read_weights(path)
    except UserError as error:
        one_line(error)
    else:
        assert not exact or same(found, EXPECTED[name])


@pytest.mark.parametrize("name", EXPECTED)
@seeded
@given(data=st.data())
def test_archives_with_damaged_bytes(name, data):
    read_case(data.draw(damaged((FOLDER / name).read_bytes())), name, exact=True)


@pytest.mark.parametrize("name", EXPECTED)
@seeded
@given(data=st.data())
def test_archives_with_another_pickle(name, data):
    """The pickle's checksum holds: what it names may be anything."""
    with zipfile.ZipFile(FOLDER / name) as file:
        entries = [(entry.filename, file.read(entry)) for entry in file.infolist()]
    with zipfile.ZipFile(FOLDER / "made.pt", "w") as file:
        for entry, content in entries:
            file.writestr(entry, data.draw(damaged(content)) if entry.endswith("data.pkl") else content)
    read_case((FOLDER / "made.pt").read_bytes(), name, exact=False)
