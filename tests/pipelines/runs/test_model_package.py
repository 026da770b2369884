"""What a registered model needs, and the example that comes with it."""

from __future__ import annotations

import ast
import base64
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np

import vlmodels
from pipelines.runs import model_package
from pipelines.runs.model_package import example_video, needed_packages, plain, signature
from vlmodels.video import read_clip


def test_a_registered_model_pins_what_it_needs_and_names_nothing_that_a_stranger_could_register():
    pins, of_clip = (dict(line.split("==") for line in needed_packages(name)) for name in ("ViT-B-16-SigLIP2", "toy"))
    assert "vidadapt" not in pins
    assert pins.keys() - of_clip.keys() == {"timm", "transformers", "sentencepiece"}
    assert all(version(name).partition("+")[0] == pinned for name, pinned in pins.items())


def test_pins_are_versions_that_an_index_has(monkeypatch):
    monkeypatch.setattr(model_package, "version", lambda name: "2.9.1+cu128")
    assert "torch==2.9.1" in needed_packages("toy")


def test_what_vlmodels_imports_at_once_is_among_it():
    imported = set()
    for path in Path(vlmodels.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    others = imported - sys.stdlib_module_names - {"vlmodels"}
    pins = {line.partition("==")[0].replace("-", "_") for line in needed_packages("toy")}
    owners = packages_distributions()
    assert not [name for name in others if not {o.replace("-", "_") for o in owners.get(name, [name])} & pins]


def test_the_example_is_a_small_video_that_moves(tmp_path):
    head, _, content = example_video().partition(",")
    assert head == "data:video/mp4;base64"
    assert len(content) < 8000
    path = tmp_path / "example.mp4"
    path.write_bytes(base64.b64decode(content))
    frames, info = read_clip(path, np.arange)
    assert (info.n_frames, info.width, info.height) == (16, 64, 64)
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100


def test_parameters_are_the_model_s_own_unless_they_are_given():
    params = {one.name: (one.dtype.name, one.default, one.shape) for one in signature().params}
    assert params == {
        "topk": ("long", 5, None),
        "labels": ("string", [], (-1,)),
        "threshold": ("double", None, None),
        "clips": ("long", None, None),
    }
    again = type(signature()).from_dict(signature().to_dict())
    assert again.params == signature().params
    assert again.outputs.input_names() == ["predictions", "status", "reason"]


def test_unknown_facts_are_no_tags():
    assert plain({"a": None, "b": "", "c": 0, "d": "x" * 9000}) == {"c": "0", "d": "x" * 5000}
