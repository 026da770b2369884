"""The published ablations, row by row, in the papers' towers and in others."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig
from tune_spaces.ablation_file import Row
from tune_spaces.ablations import ablation_names, load_ablation
from vlmodels import methods
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.published import scores

PAPER, TOY = {"video": 12, "text": 12}, {"video": 4, "text": 4}
PUBLISHED = [(method, name) for method in methods.names() for name in ablation_names(method)]


def config_of(table, row):
    overrides = [f"{key}={text}" for key, text in row.setting.items()]
    return resolve(method=table.method, preset=table.preset, base=TrainConfig(), overrides=overrides)


def test_the_published_ablations():
    assert {method: ablation_names(method) for method in methods.names() if ablation_names(method)} == {
        "adaptformer": ["regularise"],
        "m2clip": ["ted", "text_layers", "decoder", "components"],
        "msta": ["variants", "dims", "lambda", "alpha", "n_descriptions", "insertion", "descriptions", "regularise"],
        "omniclip": ["modules", "ratio", "self_prompt", "locations", "combination"],
        "viltclip": ["prompts", "retrieval_prompts", "regularise"],
    }


@pytest.mark.parametrize(("method", "name"), PUBLISHED)
@pytest.mark.parametrize("depths", [PAPER, TOY, {"video": 24, "text": 12}], ids=["paper", "toy", "large"])
def test_every_row_is_a_valid_setting_and_rows_differ_in_the_same_keys(method, name, depths):
    table = load_ablation(method, name, depths)
    assert (table.method, table.name) == (method, name)
    assert table.preset in methods.get(method).presets
    assert len({tuple(row.setting) for row in table.rows}) == 1
    assert len({row.label for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert all(key.startswith("method.") for key in row.setting)
        config_of(table, row)


@pytest.mark.parametrize(("method", "name"), PUBLISHED)
def test_in_the_papers_towers_no_row_is_scaled_and_all_rows_differ(method, name):
    table = load_ablation(method, name, PAPER)
    assert not any("here" in note.split() for note in table.notes)
    assert len({tuple(row.setting.items()) for row in table.rows}) == len(table.rows)


def as_presets_write(row):
    """Return the row with ranges and numbers of all 12 layers as the presets write them."""
    words = {"method.layers": {"1-12": "all"}, "method.depth": {"0": "12"}, "method.split": {"0": "6"}}
    return dataclasses.replace(row, setting={k: words.get(k, {}).get(v, v) for k, v in row.setting.items()})


@pytest.mark.parametrize(("method", "name"), PUBLISHED)
def test_one_row_is_the_preset_and_no_row_is_better_in_the_last_column(method, name):
    """Each paper ablates its final model and reports it as the best, so this finds a wrong preset or swapped rows."""
    table = load_ablation(method, name, PAPER)
    preset = resolve(method=method, preset=table.preset, base=TrainConfig())
    same = [row for row in table.rows if config_of(table, as_presets_write(row)) == preset]
    assert len(same) == 1
    choose = min if table.columns[-1] == "MnR" else max
    best = choose((row.printed[-1] for row in table.rows if row.printed), default=None)
    assert best is None or same[0].printed[-1] == best


def test_table_8_is_the_published_scores():
    """Both files have it; the row of the preset is the final model, whose variant is empty."""
    found = {}
    for score in scores():
        if score.source == "ViLT-CLIP table 8":
            found.setdefault(score.variant, {})[score.metric] = float(score.value)
    table = load_ablation("viltclip", "retrieval_prompts", PAPER)
    rows = [dict(zip(table.columns, row.printed, strict=True)) for row in table.rows]
    assert rows == list(found.values())
    words = [set(variant.replace(",", "").split()) - {"prompts"} for variant in found]
    assert all(word <= {*row.label.split(), "text_only"} for word, row in zip(words, table.rows, strict=True))


@pytest.mark.parametrize("name", [name for name in ablation_names("msta") if name != "regularise"])
def test_harmonic_means_follow_from_base_and_novel(name):
    for row in load_ablation("msta", name, PAPER).rows:
        base, novel, printed = row.printed
        step = 0.1 if name != "descriptions" else 0.02  # table 7 truncates, table 6 rounds
        assert 2 * base * novel / (base + novel) == pytest.approx(printed, abs=step / 2 + 1e-9)


def test_table_6f_in_the_toy_towers():
    table = load_ablation("msta", "insertion", TOY)
    assert (table.source, table.columns) == ("MSTA table 6f", ("Base", "Novel", "HM"))
    assert table.rows[0] == Row("1→6", {"method.layers": "1-2"}, (67.4, 52.9, 59.3))
    assert [row.setting["method.layers"] for row in table.rows] == ["1-2", "1-4", "3-4", "3-4", "4-4"]
    scaled, alike = table.notes
    assert "12 layers in the paper and 4 here" in scaled
    assert "8-12 is 3-4" in scaled
    assert alike == "7→12 and 8→12 are one setting here"


def test_numbers_of_layers_are_scaled_too():
    counts = [row.setting["method.text_layers"] for row in load_ablation("m2clip", "text_layers", TOY).rows]
    assert counts == ["0", "1", "1", "2", "3", "4"]


def test_a_baseline_has_no_setting():
    assert load_ablation("viltclip", "prompts", PAPER).baseline == Row("CLIP zero-shot", {}, (40.1,))
    assert load_ablation("viltclip", "retrieval_prompts", PAPER).baseline == Row("CLIP", {}, (31.2, 53.7, 22.3))
    assert load_ablation("omniclip", "modules", PAPER).baseline == Row("vanilla CLIP", {}, (51.6, 40.9))
    assert load_ablation("msta", "dims", PAPER).baseline is None


@functools.cache
def trainable(method, name, label, backbone="ViT-B-16-quickgelu"):
    table = load_ablation(method, name, PAPER)
    row = next(row for row in table.rows if row.label == label)
    cls = methods.get(method)
    with torch.device("meta"):
        built = cls(create(backbone, weights=None), cls.Config(**config_of(table, row).method_config), ["run", "jump"])
    return sum(p.numel() for p in built.trainable_parameters())


def test_rows_can_be_built_and_differ_in_what_trains():
    layer = 256 * 256 + 2563 * 256 + 4352  # the counts in MSTA's docstring
    assert trainable("msta", "insertion", "8→12") == 5 * layer
    assert trainable("msta", "variants", "without shared layers") == 12 * (layer - 256 * 257)
    assert trainable("msta", "dims", "512") == 18_972_672
    ted, text = 592_512 + 594_816, 394_112
    full = trainable("m2clip", "ted", "parallel")
    assert full - trainable("m2clip", "ted", "layers 1-5") == 7 * ted
    assert full - trainable("m2clip", "ted", "TE alone") == 12 * 594_816
    assert trainable("m2clip", "components", "+ TED adapter") == 12 * ted + 263_936
    assert trainable("m2clip", "decoder", "contrastive") == 12 * ted + 263_936 + text
    assert trainable("viltclip", "prompts", "text") == 61_440
    assert trainable("viltclip", "prompts", "+ scenario-guided (Sg)") == 864_512
    assert trainable("viltclip", "retrieval_prompts", "text 4") == 4 * 12 * 512
    assert trainable("viltclip", "retrieval_prompts", "independent 6 and 10") == 12 * (6 * 512 + 10 * 768)
    assert trainable("viltclip", "retrieval_prompts", "multimodal 6") == 833_792
    both, pta = trainable("omniclip", "modules", "PTA and SPG"), trainable("omniclip", "modules", "PTA")
    assert both - pta == 12 * 1_181_184
    assert trainable("omniclip", "modules", "neither") == pta - 12 * (444_096 + 384 + 1)
    assert trainable("omniclip", "ratio", "1/8") < pta + 12 * 1_181_184


def test_messages_about_unknown_names_list_the_nearest_and_the_known_ones():
    for method, name, words in (
        ("mstaa", "dims", ["did you mean 'msta'"]),
        ("msta", "insertions", ["did you mean 'insertion'", "n_descriptions"]),
        ("linear", "dims", ["linear has no ablations", "adaptformer, m2clip, msta, omniclip, viltclip"]),
    ):
        with pytest.raises(UserError) as error:
            load_ablation(method, name, PAPER)
        assert all(word in str(error.value) for word in words), error.value
    assert ablation_names("linear") == []


@settings(max_examples=20, deadline=None)
@given(video=st.integers(1, 32), text=st.integers(1, 32))
def test_scaled_ablations_fit_any_towers(video, text):
    shallower = min(video, text)
    for row in load_ablation("msta", "insertion", {"video": video, "text": text}).rows:
        start, stop = map(int, row.setting["method.layers"].split("-"))
        assert 1 <= start <= stop <= shallower
    for row in load_ablation("m2clip", "text_layers", {"video": video, "text": text}).rows:
        assert 0 <= int(row.setting["method.text_layers"]) <= text
