"""Domains, grids, samples, and the encoding of settings for Optuna."""

from __future__ import annotations

import itertools

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_spaces.domains import (
    Choice,
    Integers,
    Layers,
    LogUniform,
    Uniform,
    decode,
    distributions,
    encode,
    grid,
    parse_grid,
    parse_values,
    sample,
    to_text,
)
from tune_spaces.layer_ranges import all_ranges
from vlmodels.errors import UserError

FINITE = {"method.layers": Layers(4), "method.dims": Choice(("64", "128")), "method.depth": Integers(1, 3)}
DEPTHS = st.integers(1, 32)


def test_a_grid_lists_every_combination_in_order():
    found = grid({"a": Choice(("x", "y")), "b": Integers(1, 2)})
    assert found == [{"a": a, "b": b} for a, b in itertools.product("xy", "12")]
    assert len(grid(FINITE)) == 10 * 2 * 3
    assert grid({}) == [{}]


def test_a_grid_of_continuous_domains_is_refused_and_the_message_names_all_of_them():
    with pytest.raises(UserError) as error:
        grid({"optim.lr": LogUniform(1e-4, 1e-2), "method.scale": Uniform(0, 1), "method.dims": Integers(1, 2)})
    for part in ("--grid optim.lr=a,b,c", "0.0001 to 0.01 (log)", "--grid method.scale=a,b,c", "0 to 1"):
        assert part in str(error.value)
    assert "dims" not in str(error.value)


@settings(deadline=None)
@given(count=st.integers(0, 80), seed=st.integers(0, 10**9))
def test_samples_of_a_finite_space_are_seeded_distinct_and_in_the_grid(count, seed):
    drawn = sample(FINITE, count, seed)
    assert drawn == sample(FINITE, 90, seed)[:count]
    assert len(drawn) == min(count, 60)
    every = grid(FINITE)
    assert all(setting in every for setting in drawn)
    assert len({tuple(setting.values()) for setting in drawn}) == len(drawn)


def test_more_samples_of_a_space_too_large_to_list_begin_with_the_same_ones():
    large = {f"key{number}": Integers(1, 100) for number in range(4)}
    few, many = sample(large, 5, seed=1), sample(large, 50, seed=1)
    assert few == many[:5]
    assert len({tuple(setting.values()) for setting in many}) == 50


def test_samples_reach_all_values():
    drawn = sample(FINITE, 60, seed=1)
    assert {setting["method.layers"] for setting in drawn} == set(all_ranges(4))
    assert sample(FINITE, 20, seed=1) != sample(FINITE, 20, seed=2)


@settings(deadline=None)
@given(low=st.floats(1e-6, 1.0), factor=st.floats(1.01, 1e4), seed=st.integers(0, 10**9), log=st.booleans())
def test_continuous_samples_are_seeded_and_short_numbers_within_bounds(low, factor, seed, log):
    low = float(to_text(low))
    high = float(to_text(low * factor))
    space = {"x": (LogUniform if log else Uniform)(low, high), "method.layers": Layers(12)}
    drawn = sample(space, 20, seed)
    assert drawn == sample(space, 30, seed)[:20]
    assert len(drawn) == 20
    for setting in drawn:
        assert low <= float(setting["x"]) <= high
        assert setting["x"] == f"{float(setting['x']):.4g}"


def test_log_uniform_samples_have_as_many_below_the_geometric_mean_as_above():
    drawn = [float(setting["x"]) for setting in sample({"x": LogUniform(1e-4, 1e-2)}, 2000, seed=1)]
    assert sum(x < 1e-3 for x in drawn) / 2000 == pytest.approx(0.5, abs=0.05)


@settings(deadline=None)
@given(depth=DEPTHS, data=st.data())
def test_any_two_layers_in_any_order_are_a_valid_range(depth, data):
    layer = st.integers(1, depth)
    a, b = data.draw(layer), data.draw(layer)
    space = {"method.layers": Layers(depth)}
    setting = decode(space, {"method.layers.start": a, "method.layers.stop": b})
    assert setting["method.layers"] in all_ranges(depth)
    assert setting == decode(space, {"method.layers.start": b, "method.layers.stop": a})


def test_suggestions_of_optuna_decode_to_settings_of_the_space():
    space = {**FINITE, "optim.lr": LogUniform(1e-4, 1e-2), "method.scale": Uniform(0, 1)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = distributions(space)
    assert set(found) == {"method.layers.start", "method.layers.stop", *space} - {"method.layers"}
    for _ in range(50):
        setting = decode(space, study.ask(fixed_distributions=found).params)
        assert list(setting) == list(space)
        assert {key: setting[key] for key in FINITE} in grid(FINITE)
        assert 1e-4 <= float(setting["optim.lr"]) <= 1e-2
        assert 0 <= float(setting["method.scale"]) <= 1


def test_a_domain_describes_its_values():
    space = {"a": Choice(("1-2", "1-4")), "b": Integers(1, 4), "c": Layers(4), "d": Uniform(0.0, 0.5)}
    texts = {key: str(domain) for key, domain in space.items()}
    assert texts == {"a": "1-2, 1-4", "b": "1 to 4, whole numbers", "c": "any range within 1-4", "d": "0 to 0.5"}
    assert Uniform(1, 2) != LogUniform(1, 2)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (64, "64"), (0.0, "0"), (0.123456, "0.1235"), (1e-5, "1e-05"), ("both", "both")]
)
def test_values_are_written_as_the_set_flag_accepts_them(value, text):
    assert to_text(value) == text


def test_grids_are_read_from_the_command_line():
    assert parse_grid("optim.lr=1e-3, 3e-3,1e-3") == ("optim.lr", Choice(("1e-3", "3e-3")))
    assert parse_grid("method.layers=1-6,all") == ("method.layers", Choice(("1-6", "all")))
    for wrong in ("optim.lr", "optim.lr=", "=1,2", "optim.lr=,", "", "key=[1", "key=a: b", "key=[1,2],[3]", "key='a"):
        with pytest.raises(UserError, match="key=a,b,c"):
            parse_grid(wrong)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("method.targets='q,v',q", ("q,v", "q")),
        ('method.targets= "q,v" , q', ("q,v", "q")),
        ("method.targets=[8-12, '1,4']", ("8-12", "1,4")),
        ("method.targets=['q,v']", ("q,v",)),
        ("method.x=[1e-3, yes, 010, null, 1.50, -1, 2:3, '']", ("1e-3", "yes", "010", "null", "1.50", "-1", "2:3", "")),
    ],
)
def test_quotes_keep_commas_and_values_stay_unchanged_texts(text, values):
    key, domain = parse_grid(text)
    assert (key, domain.values) == (text.partition("=")[0], values)


def test_a_value_with_a_comma_is_written_differently_from_two_values():
    assert str(Choice(("q,v", "q"))) == "'q,v', q"
    assert str(Choice(("a, b",))) != str(Choice(("a", "b")))  # else two different sweeps would get the same name


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_an_encoded_setting_decodes_to_itself(seed):
    layers = {"method.layers": Layers(3), "method.dims": Choice(("64", "128"))}
    space = {**layers, "a.n": Integers(1, 7), "optim.lr": LogUniform(1.23456e-5, 0.1), "b": Uniform(-1, 2)}
    setting = sample(space, 1, seed)[0]
    assert decode(space, encode(space, setting)) == setting


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2, 3", ("1", "2", "3")),
        ("[1,2]", ("1", "2")),
        ("'a,b',c", ("a,b", "c")),
        ("", ()),
        ("1,,2", ()),
        ("a: b", ()),
    ],
)
def test_lists_of_values_are_parsed_and_other_texts_give_none(text, values):
    assert parse_values(text) == values
