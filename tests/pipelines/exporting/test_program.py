"""Every method, as torch.export and as ONNX, computes what PyTorch does.

A graph takes seconds, so a method is tried on CLIP or ViCLIP, in turns, and one of the other families with one
method; with EXPORT_ALL=1, all with all.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.exporting import check, onnx_file, program
from pipelines.exporting.merge import merged_method
from tests.helpers import tiny_families
from tests.helpers.tiny_clip import CLASSES, disturb, tiny_method
from vlmodels import methods

CASES = [
    (name, head)
    for name in methods.names()
    for head in (["text", "linear"] if "head" in methods.get(name).Config.__dataclass_fields__ else [""])
]
FAMILIES = {"clip": False, "viclip": True}
GRAPHS = [
    pytest.param(name, head, joint, id=f"{name} {head} {family}")
    for number, (name, head) in enumerate(CASES)
    for family, joint in FAMILIES.items()
    if os.environ.get("EXPORT_ALL") or joint == bool(number % 2)
]
TURNS = dict(
    zip(tiny_families.FAMILIES, itertools.cycle(["msta", "m2clip", "omniclip", "aim", "viltclip"]), strict=False)
)
OTHER_FAMILIES = [
    (name, family)
    for family, turn in TURNS.items()
    for name in methods.names()
    if os.environ.get("EXPORT_ALL") or (name == turn and family == "pe")
]
OTHERS = ("swimming", "sleeping", "reading a book", "CUTTING bread", "waving")


def trained(name, head="", *, joint=False):
    """A small method moved away from its start, as training would."""
    cls = methods.get(name)
    config = cls.Config(head=head) if head else None
    layers = 2 if name in ("msta", "m2clip") else 1  # convolutions of patches reach the output through a further layer
    return disturb(tiny_method(cls, config, joint=joint, video_layers=layers, text_layers=1)).eval()


def with_torch(module, inputs):
    with torch.no_grad():
        return [output.numpy() for output in module(*map(torch.from_numpy, inputs))]


def exported(method, folder):
    """The program, its graph and its ONNX file in ONNX Runtime."""
    found = program.VideoProgram(merged_method(method) or method, program.scoring_of(method)).eval()
    graph = program.capture(found)
    onnx_file.write_onnx(graph, folder / "a.onnx", program.input_names(found), program.output_names(found))
    return found, graph, onnx_file.OnnxModel(folder / "a.onnx", threads=1)


@pytest.mark.parametrize(("name", "head", "joint"), GRAPHS)
def test_graphs_compute_what_pytorch_does(name, head, joint, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    method = trained(name, head, joint=joint)
    found, graph, model = exported(method, tmp_path)
    cases = check.make_cases(method, found)
    assert {len(case.inputs[0]) for case in cases} == {1, 2, 4}
    assert check.compare(cases, lambda inputs: with_torch(graph.module(), inputs)).largest < check.TOLERANCE
    assert check.compare(cases, model).largest < check.TOLERANCE
    shapes = {value.name: (value.type, value.shape) for value in model.session.get_inputs()}
    assert shapes["frames"] == ("tensor(uint8)", ["views", 4, 16, 24, 3])
    if found.scoring == "texts":  # other classes, in another number, without another graph
        frames = cases[0].inputs[0]
        method.set_classes(OTHERS)
        logits = model([frames, program.class_features(method).numpy()])[1]
        pictures = (torch.from_numpy(frames).permute(0, 1, 4, 2, 3) / 255 - found.mean) / found.std
        with torch.no_grad():
            assert torch.from_numpy(logits).allclose(method(pictures).logits, atol=1e-4 * 14)


@pytest.mark.parametrize(("name", "family"), OTHER_FAMILIES)
def test_graphs_of_other_families_do_so_too(name, family, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    method = methods.get(name)(tiny_families.tiny_family_backbone(family), None, CLASSES)
    method.set_classes(CLASSES)
    method = disturb(method).eval()
    found, graph, model = exported(method, tmp_path)
    cases = check.make_cases(method, found)
    assert check.compare(cases, lambda inputs: with_torch(graph.module(), inputs)).largest < check.TOLERANCE
    assert check.compare(cases, model).largest < check.TOLERANCE


@pytest.mark.parametrize(("name", "head"), CASES)
def test_a_classifier_is_told_from_texts(name, head):
    wanted = "classifier" if head == "linear" or name in ("linear", "m2clip") else "texts"
    method = trained(name, head)
    assert program.scoring_of(method) == wanted
    assert method.classes == CLASSES
    assert method.given_features is None


def test_without_classes_there_are_features_alone(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    method = trained("adaptformer")
    method.classes = ()
    found, _, model = exported(method, tmp_path)
    cases = check.make_cases(method, found)
    assert found.scoring == "features"
    assert [value.name for value in model.session.get_outputs()] == ["features"]
    assert check.compare(cases, model).largest < check.TOLERANCE


def test_a_classifier_that_scores_by_texts_only_takes_any_classes():
    cls = methods.get("m2clip")
    assert program.scoring_of(tiny_method(cls, cls.Config(score_mode="text")).eval()) == "texts"


def test_classes_that_a_classifier_does_not_know_are_scored_as_in_pytorch(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    method = trained("st_adapter", "linear")
    method.set_classes(["sleeping", CLASSES[1], "waving", CLASSES[0]])
    found, _, model = exported(method, tmp_path)
    assert found.scoring == "classifier"
    assert check.compare(check.make_cases(method, found), model).largest < check.TOLERANCE


def test_features_have_the_norm_1_and_logits_differ_between_views():
    """Else a comparison would mean little."""
    method = trained("msta")
    (case, *_, last) = check.make_cases(method, program.VideoProgram(method, "texts"))
    features, logits = map(torch.from_numpy, last.outputs)
    assert features.norm(dim=-1).allclose(torch.ones(4))
    assert (functional.pdist(logits) > 0.01).all()
    assert not np.array_equal(case.inputs[1], last.inputs[1])
