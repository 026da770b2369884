"""Ours next to what the papers print: sizes exact, costs within a percent, the tables of the README up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmodels import matrix, methods
from vlmodels.clip import names
from vlmodels.describe import describe
from vlmodels.published import FIGURES, figure, scores

README = Path(__file__).parents[2] / "README.md"
TRAINABLE = {  # printed, in millions
    ("msta", "full"): "8.7",
    ("msta", "fewshot"): "1.744",
    ("adaptformer", "full"): "7.9",
    ("lora", "full"): "9.4",
    ("finetune", "full"): "124.3",
    ("m2clip", "full"): "16",
    ("st_adapter", "full"): "7",
    ("aim", "full"): "11",
}


@pytest.mark.parametrize("f", FIGURES, ids=lambda f: f"{f.method}-{f.preset}-{f.backbone}")
def test_sizes_are_exact_and_costs_within_a_percent(f):
    found = describe(f.method, f.backbone, preset=f.preset, frames=f.frames)
    assert found["trainable"] == f.trainable
    assert found["gmacs_video"] == pytest.approx(f.gmacs, rel=0.01)
    if f.source:
        assert found["published"]["source"] == f.source
    printed = TRAINABLE.get((f.method, f.preset))
    assert (f.printed_trainable != "") == (printed is not None)
    if printed:
        digits = len(printed.partition(".")[2])
        assert f.printed_trainable == f"{printed} M" == f"{f.trainable / 1e6:.{digits}f} M"


def test_a_quickgelu_backbone_is_the_published_one_and_another_is_not():
    assert figure("m2clip", "full", "ViT-B-16-quickgelu", 8) is figure("m2clip", "full", "ViT-B/16", 8)
    assert figure("m2clip", "full", "ViT-L-14", 8) is None
    assert figure("m2clip", "full", "ViT-B-16", 16) is None


def test_scores_are_of_known_methods_and_protocols():
    known = set(names())
    for score in scores():
        assert score.method in methods.names()
        assert score.backbone in known
        assert score.protocol in {"zero_shot", "few_shot", "b2n", "supervised", "retrieval"}
        assert 0 < float(score.value.partition("±")[0]) <= 100
    assert {"msta", "m2clip", "viltclip", "omniclip"} < {score.method for score in scores()}


def test_harmonic_means_are_those_of_base_and_novel():
    """Papers average over seeds first, so a few tenths may lie between."""
    found = {}
    for s in scores():
        if s.protocol == "b2n":
            found.setdefault((s.method, s.variant, s.backbone, s.dataset, s.source), {})[s.metric] = float(s.value)
    for key, parts in found.items():
        assert parts["HM"] == pytest.approx(2 / (1 / parts["base"] + 1 / parts["novel"]), abs=0.9), key


def test_the_readme_holds_the_matrix():
    assert matrix.matrix() in README.read_text(), "put the output of python -m vlmodels --matrix into README.md"


def test_the_table_of_figures_has_a_row_for_each():
    rows = matrix.figures_table().splitlines()[2:]
    assert len(rows) == len(FIGURES)
    assert any("m2clip full | ViT-B-16 | 8 | 16,138,136 | 16 M | 162.85 | 214" in row for row in rows)
