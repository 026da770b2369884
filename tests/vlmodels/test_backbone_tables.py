"""Tables of backbones against closed forms and printed sizes; README and docs hold what the generator makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmodels import backbone_tables, methods
from vlmodels.backbone_tables import MAIN, cell, changes_the_class_token, size_of, size_row
from vlmodels.catalogue import entries
from vlmodels.published import zero_shot_scores

ROOT = Path(__file__).parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs/BACKBONES.md"
PRINTED = {  # 1e9 parameters of the image tower: perception_models, apps/pe/README.md
    "PE-Core-B-16": 0.09,
    "PE-Core-L-14-336": 0.32,
    "PE-Core-bigG-14-448": 1.88,
}


@pytest.mark.parametrize("name", PRINTED)
def test_parameters_are_those_that_are_printed(name):
    assert round(size_of(name).image / 1e9, 2) == PRINTED[name]


def test_a_map_pooled_tower_costs_its_closed_form():
    width, patches, layers = 768, 196, 12
    blocks = layers * (patches * 12 * width**2 + 2 * patches**2 * width)
    pool = (
        2 * patches * width**2 + 10 * width**2 + 2 * patches * width
    )  # keys and values; query, output, MLP; attention
    assert size_of("ViT-B-16-SigLIP2").gmacs == pytest.approx(8 * (patches * width**2 + blocks + pool) / 1e9, rel=1e-4)


def test_the_text_tower_of_hugging_face_is_not_counted():
    assert size_of("xlm-roberta-base-ViT-B-32").text is None
    assert size_of("xlm-roberta-base-ViT-B-32").image == size_of("ViT-B-32-quickgelu").image


def test_scores_are_of_known_backbones_and_weights():
    known = entries()
    for score in zero_shot_scores():
        assert score.tag in (*known[score.backbone].weights, "released")
        assert score.source
        assert 0 < float(score.value.partition("±")[0]) <= 100


def test_the_readme_holds_the_main_backbones():
    assert backbone_tables.sizes_table() in README.read_text(), (
        "put the output of python -m vlmodels --backbones into README.md"
    )


def test_the_documents_hold_all_backbones():
    """Names of all; the row of those that are quick to build."""
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in DOCS.read_text().splitlines()}
    assert set(entries()) - {"toy", "toy-viclip"} <= rows.keys(), (
        "put the output of python -m vlmodels --backbones all into docs/BACKBONES.md"
    )
    for name in (*MAIN, "ViT-S-16", "EVA01-g-14", "ViTamin-XL-384", "nllb-clip-base-siglip"):
        assert rows[name] == "| " + " | ".join(size_row(name)) + " |"


def test_the_readme_holds_the_families():
    assert backbone_tables.families_table() in README.read_text(), (
        "put the output of python -m vlmodels --families into README.md"
    )


@pytest.mark.parametrize(
    ("method", "backbone", "found"),
    [
        ("zeroshot", "ViT-B-16-SigLIP2", "yes"),
        ("msta", "ViT-B-16-SigLIP2", "patches"),
        ("st_adapter", "ViT-B-16-SigLIP2", "yes"),
        ("linear", "PE-Core-B-16", "pooled token"),
        ("linear", "EVA02-B-16", "yes"),
        ("aim", "ViCLIP-B-16", "one sequence"),
        ("lora", "xlm-roberta-base-ViT-B-32", "yes"),
        ("msta", "xlm-roberta-base-ViT-B-32", "`branches=video`"),
    ],
)
def test_a_cell_says_what_differs(method, backbone, found):
    assert cell(method, backbone) == found


def test_what_cannot_run_is_refused_with_the_reason():
    assert cell("viltclip", "xlm-roberta-base-ViT-B-32").startswith("no: ")


def test_which_methods_change_the_class_token():
    assert {name for name in methods.names() if changes_the_class_token(name)} == {"aim", "m2clip", "msta", "omniclip"}
