"""Ablations in a user's own TOML file, and the mistakes in them."""

from __future__ import annotations

import pytest

from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig
from tune_spaces.ablation_file import Row, read_ablation
from vlmodels.errors import UserError

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


def write_toml(folder, text, name="own.toml"):
    path = folder / name
    path.write_text(text)
    return path


def config_of(table, row):
    overrides = [f"{key}={text}" for key, text in row.setting.items()]
    return resolve(method=table.method, preset=table.preset, base=TrainConfig(), overrides=overrides)


def test_a_users_own_table_is_read_unscaled(tmp_path):
    table = read_ablation(write_toml(tmp_path, OWN), "places")
    assert (table.method, table.name, table.columns, table.notes) == ("msta", "places", ("Base", "Novel"), ())
    assert table.rows[0] == Row("raw", {"method.input": "raw", "optim.lr": "1e-3"}, ())
    assert table.rows[1].printed == (70.0, 50.5)
    assert config_of(table, table.rows[0]).method_config["input"] == "raw"


def test_the_method_defaults_to_the_name_of_the_file(tmp_path):
    text = OWN.replace('method = "msta"\n', "")
    assert read_ablation(write_toml(tmp_path, text, "msta.toml"), "places").method == "msta"
    with pytest.raises(UserError, match="method='own'"):
        read_ablation(write_toml(tmp_path, text), "places")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'title = "What',
            'titel = "What',
            ["[places]", "title is missing", "titel is unknown (did you mean 'title'?)"],
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
        ('label = "raw", set', 'label = "raw", sets', ["row 1 set is missing", "row 1 sets is unknown", "'set'"]),
        ('method = "msta"', 'method = "mtsa"', ["own.toml", "did you mean 'msta'"]),
        ('method = "msta"', 'metod = "msta"', ["own.toml", "'metod' is not a table"]),
        ("[places]", "[place]", ["no ablation 'places' (did you mean 'place'?)"]),
        ('title = "What', "title = What", ["own.toml is not TOML", "line"]),
    ],
)
def test_messages_about_mistakes_name_file_table_and_row(tmp_path, old, new, words):
    assert OWN.count(old) == 1
    path = write_toml(tmp_path, OWN.replace(old, new))
    with pytest.raises(UserError) as error:
        read_ablation(path, "places")
    assert all(word in str(error.value) for word in [str(path), *words]), error.value


def test_an_unreadable_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.toml cannot be read"):
        read_ablation(tmp_path / "nowhere.toml", "places")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not TOML"):
        read_ablation(path, "places")
