"""Spaces derived from metadata; the published ablations, row by row; a user's own tables and the mistakes in them."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig
from tune_spaces.domains import Choice, Integers, Layers, LogUniform, Uniform
from tune_spaces.spaces import Row, ablation, ablations, insertion_space, read_ablation, space_of
from vlmodels import methods
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.base import setting

PAPER, TOY = {"video": 12, "text": 12}, {"video": 4, "text": 4}
PUBLISHED = [(method, name) for method in methods.names() for name in ablations(method)]


@dataclasses.dataclass
class Config:
    """One field of each kind."""

    layers: str = setting("all", "", {"layers": "both"}, apart={"layers": "video"})
    text_layers: int = setting(1, "", {"choice": (0, 1)}, apart={"depth": "text"})
    depth: int = setting(0, "", {"depth": "video"})
    dims: int = setting(64, "", {"choice": (64, 128)})
    on: bool = setting(True, "", {"choice": (True, False)})
    scale: float = setting(0.1, "", {"loguniform": (0.01, 1.0)})
    dropout: float = setting(0.0, "", {"uniform": (0.0, 0.5)})
    site: str = setting("pre", "nothing to try")


DEPTHS = {"video": 24, "text": 12}


def config_of(table, row):
    overrides = [f"{key}={text}" for key, text in row.setting.items()]
    return resolve(method=table.method, preset=table.preset, base=TrainConfig(), overrides=overrides)


# --------------------------------------------------------------------------------------------- from metadata


def test_a_space_has_each_field_that_says_what_to_try():
    assert space_of(Config, depths=DEPTHS) == {
        "method.layers": Layers(12),
        "method.text_layers": Choice(("0", "1")),
        "method.depth": Integers(1, 24),
        "method.dims": Choice(("64", "128")),
        "method.on": Choice(("true", "false")),
        "method.scale": LogUniform(0.01, 1.0),
        "method.dropout": Uniform(0.0, 0.5),
    }
    assert space_of(Config, depths=DEPTHS, prefix="m.", names=["dims"]) == {"m.dims": Choice(("64", "128"))}


def test_insertion_is_where_and_of_each_tower_apart_if_asked():
    assert insertion_space(Config, depths=DEPTHS) == {"method.layers": Layers(12), "method.depth": Integers(1, 24)}
    assert insertion_space(Config, depths=DEPTHS, apart=True) == {
        "method.layers": Layers(24),
        "method.text_layers": Integers(1, 12),
        "method.depth": Integers(1, 24),
    }


def test_what_cannot_be_searched_is_told_with_the_remedy():
    with pytest.raises(UserError) as error:
        space_of(Config, depths=DEPTHS, names=["dim", "site"])
    for part in ("'dim'", "did you mean 'dims'", "'site'", "--grid method.site=a,b,c"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="ZeroShot"):
        space_of(methods.get("zeroshot").Config, depths=PAPER)
    with pytest.raises(UserError, match="no layers"):
        insertion_space(methods.get("finetune").Config, depths=PAPER)


def test_unknown_metadata_are_a_developers_mistake():
    config = dataclasses.make_dataclass("C", [("x", int, setting(1, "", {"chioce": (1, 2)}))])
    with pytest.raises(TypeError, match="chioce"):
        space_of(config, depths=PAPER)


@pytest.mark.parametrize("method", methods.names())
def test_every_methods_metadata_are_understood_and_each_value_is_one_it_takes(method):
    config = methods.get(method).Config
    told = [f for f in dataclasses.fields(config) if f.metadata.get("tune")]
    if not told:
        return
    space = space_of(config, depths=PAPER)
    assert list(space) == [f"method.{f.name}" for f in told]
    for key, domain in space.items():
        for value in domain.every() or (str(domain.low), str(domain.high)):
            resolve(method=method, preset=None, base=TrainConfig(), overrides=[f"{key}={value}"])
    if any(f.metadata["tune"].keys() & {"layers", "depth"} for f in told):
        assert insertion_space(config, depths=PAPER)
        assert insertion_space(config, depths=PAPER, apart=True)


# ------------------------------------------------------------------------------------- the published ablations


def test_which_ablations_there_are():
    assert {method: ablations(method) for method in methods.names() if ablations(method)} == {
        "m2clip": ["ted", "text_layers", "decoder", "components"],
        "msta": ["variants", "dims", "lambda", "alpha", "n_descriptions", "insertion", "descriptions"],
        "omniclip": ["modules", "ratio", "self_prompt", "locations", "combination"],
        "viltclip": ["prompts"],
    }


@pytest.mark.parametrize(("method", "name"), PUBLISHED)
@pytest.mark.parametrize("depths", [PAPER, TOY, {"video": 24, "text": 12}], ids=["paper", "toy", "large"])
def test_every_row_is_a_setting_of_the_method_and_differs_in_the_same_keys(method, name, depths):
    table = ablation(method, name, depths)
    assert (table.method, table.name) == (method, name)
    assert table.preset in methods.get(method).presets
    assert len({tuple(row.setting) for row in table.rows}) == 1
    assert len({row.label for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert all(key.startswith("method.") for key in row.setting)
        config_of(table, row)


@pytest.mark.parametrize(("method", "name"), PUBLISHED)
def test_in_the_papers_towers_no_row_is_changed_and_none_is_twice(method, name):
    table = ablation(method, name, PAPER)
    assert not any("here" in note.split() for note in table.notes)
    assert len({tuple(row.setting.items()) for row in table.rows}) == len(table.rows)


def in_the_presets_words(row):
    """The row's ranges and numbers of all 12 layers as the presets write them."""
    words = {"method.layers": {"1-12": "all"}, "method.depth": {"0": "12"}, "method.split": {"0": "6"}}
    return dataclasses.replace(row, setting={k: words.get(k, {}).get(v, v) for k, v in row.setting.items()})


@pytest.mark.parametrize(("method", "name"), PUBLISHED)
def test_a_row_is_the_preset_and_no_row_does_better_in_the_last_column(method, name):
    """Each paper ablates its final model, and says that it is best: so a wrong base or a swapped row would show."""
    table = ablation(method, name, PAPER)
    preset = resolve(method=method, preset=table.preset, base=TrainConfig())
    same = [row for row in table.rows if config_of(table, in_the_presets_words(row)) == preset]
    assert len(same) == 1
    best = max((row.printed[-1] for row in table.rows if row.printed), default=None)
    assert best is None or same[0].printed[-1] == best


@pytest.mark.parametrize("name", ablations("msta"))
def test_harmonic_means_follow_from_base_and_novel(name):
    for row in ablation("msta", name, PAPER).rows:
        base, novel, printed = row.printed
        step = 0.1 if name != "descriptions" else 0.02  # table 7 cuts where table 6 rounds
        assert 2 * base * novel / (base + novel) == pytest.approx(printed, abs=step / 2 + 1e-9)


def test_table_6f_in_the_toy_towers():
    table = ablation("msta", "insertion", TOY)
    assert (table.source, table.columns) == ("MSTA table 6f", ("Base", "Novel", "HM"))
    assert table.rows[0] == Row("1→6", {"method.layers": "1-2"}, (67.4, 52.9, 59.3))
    assert [row.setting["method.layers"] for row in table.rows] == ["1-2", "1-4", "3-4", "3-4", "4-4"]
    scaled, alike = table.notes
    assert "12 layers in the paper and 4 here" in scaled
    assert "8-12 is 3-4" in scaled
    assert alike == "7→12 and 8→12 are one setting here"


def test_counts_of_layers_are_scaled_too():
    counts = [row.setting["method.text_layers"] for row in ablation("m2clip", "text_layers", TOY).rows]
    assert counts == ["0", "1", "1", "2", "3", "4"]


def test_a_line_of_another_method_has_no_setting():
    assert ablation("viltclip", "prompts", PAPER).baseline == Row("CLIP zero-shot", {}, (40.1,))
    assert ablation("omniclip", "modules", PAPER).baseline == Row("vanilla CLIP", {}, (51.6, 40.9))
    assert ablation("msta", "dims", PAPER).baseline is None


@functools.cache
def trainable(method, name, label, backbone="ViT-B-16-quickgelu"):
    table = ablation(method, name, PAPER)
    row = next(row for row in table.rows if row.label == label)
    cls = methods.get(method)
    with torch.device("meta"):
        built = cls(create(backbone, weights=None), cls.Config(**config_of(table, row).method_config), ["run", "jump"])
    return sum(p.numel() for p in built.trainable_parameters())


def test_rows_can_be_built_and_differ_in_what_trains():
    layer = 256 * 256 + 2563 * 256 + 4352  # as MSTA's docstring counts
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
    both, pta = trainable("omniclip", "modules", "PTA and SPG"), trainable("omniclip", "modules", "PTA")
    assert both - pta == 12 * 1_181_184
    assert trainable("omniclip", "modules", "neither") == pta - 12 * (444_096 + 384 + 1)
    assert trainable("omniclip", "ratio", "1/8") < pta + 12 * 1_181_184


def test_unknown_names_are_told_with_the_nearest_and_the_known():
    for method, name, words in (
        ("mstaa", "dims", ["did you mean 'msta'"]),
        ("msta", "insertions", ["did you mean 'insertion'", "n_descriptions"]),
        ("linear", "dims", ["linear has no published ablations", "m2clip, msta, omniclip, viltclip"]),
    ):
        with pytest.raises(UserError) as error:
            ablation(method, name, PAPER)
        assert all(word in str(error.value) for word in words), error.value
    assert ablations("linear") == []


# ------------------------------------------------------------------------------------------------- own tables

OWN = """
method = "msta"
[places]
title = "What an adapter reads"
source = "our own"
protocol = "b2n"
preset = "b2n"
data = "HMDB51"
columns = ["Base", "Novel"]
rows = [
  { label = "raw", set = { "method.input" = "raw", "optim.lr" = "1e-3" }, printed = [] },
  { label = "normalised", set = { "method.input" = "ln_1" }, printed = [70, 50.5] },
]
"""


def written_to(folder, text, name="own.toml"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_users_own_table_is_read_as_it_stands(tmp_path):
    table = read_ablation(written_to(tmp_path, OWN), "places")
    assert (table.method, table.name, table.columns, table.notes) == ("msta", "places", ("Base", "Novel"), ())
    assert table.rows[0] == Row("raw", {"method.input": "raw", "optim.lr": "1e-3"}, ())
    assert table.rows[1].printed == (70.0, 50.5)
    assert config_of(table, table.rows[0]).method_config["input"] == "raw"


def test_the_file_s_name_is_the_method_if_nothing_else_says(tmp_path):
    text = OWN.replace('method = "msta"\n', "")
    assert read_ablation(written_to(tmp_path, text, "msta.toml"), "places").method == "msta"
    with pytest.raises(UserError, match="method='own' is no method"):
        read_ablation(written_to(tmp_path, text), "places")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'title = "What',
            'titel = "What',
            ["[places]", "title is missing", "titel is not known (did you mean 'title'?)"],
        ),
        ('"b2n"\npreset', '"bn2"\npreset', ["[places]", "protocol", "'b2n'"]),
        ('["Base", "Novel"]', '"Base"', ["[places]", "columns", "list"]),
        ("[70, 50.5]", "[70]", ["[places]", "'normalised' prints 1 numbers for the 2 columns", "printed = []"]),
        ("[70, 50.5]", '["70", 50.5]', ["[places]", "row 2 printed 1", "number"]),
        (", printed = [] }", " }", ["[places]", "row 1 printed is missing"]),
        ('label = "raw", ', "", ["[places]", "row 1 label is missing"]),
        ('set = { "method.input" = "ln_1" }', "set = {}", ["[places]", "row 2 set is empty"]),
        ('["Base", "Novel"]', "[]", ["[places]", "columns is empty"]),
        ('"method.input" = "ln_1"', '"method.dims" = 64', ["[places]", "row 2 set method.dims", "string", '"64"']),
        ('"method.input" = "ln_1"', 'method.input = "ln_1"', ["[places]", "row 2 set method", "quoted keys"]),
        ('label = "raw", set', 'label = "raw", sets', ["row 1 set is missing", "row 1 sets is not known", "'set'"]),
        ('method = "msta"', 'method = "mtsa"', ["own.toml", "did you mean 'msta'"]),
        ('method = "msta"', 'metod = "msta"', ["own.toml", "'metod' is no table"]),
        ("[places]", "[place]", ["no ablation 'places' (did you mean 'place'?)"]),
        ('title = "What', "title = What", ["own.toml is not TOML", "line"]),
    ],
)
def test_a_mistake_is_told_with_file_table_and_row(tmp_path, old, new, words):
    assert OWN.count(old) == 1
    path = written_to(tmp_path, OWN.replace(old, new))
    with pytest.raises(UserError) as error:
        read_ablation(path, "places")
    assert all(word in str(error.value) for word in [str(path), *words]), error.value


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.toml cannot be read"):
        read_ablation(tmp_path / "nowhere.toml", "places")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not TOML"):
        read_ablation(path, "places")


@settings(max_examples=20, deadline=None)
@given(video=st.integers(1, 32), text=st.integers(1, 32))
def test_scaled_ablations_fit_any_towers(video, text):
    shallower = min(video, text)
    for row in ablation("msta", "insertion", {"video": video, "text": text}).rows:
        start, stop = map(int, row.setting["method.layers"].split("-"))
        assert 1 <= start <= stop <= shallower
    for row in ablation("m2clip", "text_layers", {"video": video, "text": text}).rows:
        assert 0 <= int(row.setting["method.text_layers"]) <= text
