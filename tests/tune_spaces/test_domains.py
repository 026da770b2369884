"""Ways through a space, and ranges of layers in towers of other depths."""

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
    dimensions,
    grid,
    parse_grid,
    sample,
    written,
)
from tune_spaces.insertion import every_range, scaled
from vlmodels.errors import UserError

FINITE = {"method.layers": Layers(4), "method.dims": Choice(("64", "128")), "method.depth": Integers(1, 3)}
DEPTHS = st.integers(1, 32)


def ends(text):
    return tuple(int(end) for end in text.split("-"))


def test_a_grid_is_every_combination_in_order():
    found = grid({"a": Choice(("x", "y")), "b": Integers(1, 2)})
    assert found == [{"a": a, "b": b} for a, b in itertools.product("xy", "12")]
    assert len(grid(FINITE)) == 10 * 2 * 3
    assert grid({}) == [{}]


def test_a_grid_of_continuous_domains_names_them_all_and_the_remedy():
    with pytest.raises(UserError) as error:
        grid({"optim.lr": LogUniform(1e-4, 1e-2), "method.scale": Uniform(0, 1), "method.dims": Integers(1, 2)})
    for part in ("--grid optim.lr=a,b,c", "0.0001 to 0.01 (log)", "--grid method.scale=a,b,c", "0 to 1"):
        assert part in str(error.value)
    assert "dims" not in str(error.value)


@settings(deadline=None)
@given(count=st.integers(0, 80), seed=st.integers(0, 10**9))
def test_samples_of_finite_spaces_are_seeded_distinct_and_of_the_grid(count, seed):
    drawn = sample(FINITE, count, seed)
    assert drawn == sample(FINITE, 90, seed)[:count]
    assert len(drawn) == min(count, 60)
    every = grid(FINITE)
    assert all(setting in every for setting in drawn)
    assert len({tuple(setting.values()) for setting in drawn}) == len(drawn)


def test_samples_of_a_space_too_large_to_list_begin_alike():
    large = {f"key{number}": Integers(1, 100) for number in range(4)}
    few, many = sample(large, 5, seed=1), sample(large, 50, seed=1)
    assert few == many[:5]
    assert len({tuple(setting.values()) for setting in many}) == 50


def test_samples_reach_all_values_evenly():
    drawn = sample(FINITE, 60, seed=1)
    assert {setting["method.layers"] for setting in drawn} == set(every_range(4))
    assert sample(FINITE, 20, seed=1) != sample(FINITE, 20, seed=2)


@settings(deadline=None)
@given(low=st.floats(1e-6, 1.0), factor=st.floats(1.01, 1e4), seed=st.integers(0, 10**9), log=st.booleans())
def test_continuous_samples_are_seeded_and_short_numbers_within_bounds(low, factor, seed, log):
    low = float(written(low))
    high = float(written(low * factor))
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
    assert setting["method.layers"] in every_range(depth)
    assert setting == decode(space, {"method.layers.start": b, "method.layers.stop": a})


def test_what_optuna_suggests_is_decoded_to_settings_of_the_space():
    space = {**FINITE, "optim.lr": LogUniform(1e-4, 1e-2), "method.scale": Uniform(0, 1)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = dimensions(space)
    assert set(found) == {"method.layers.start", "method.layers.stop", *space} - {"method.layers"}
    for _ in range(50):
        setting = decode(space, study.ask(fixed_distributions=found).params)
        assert list(setting) == list(space)
        assert {key: setting[key] for key in FINITE} in grid(FINITE)
        assert 1e-4 <= float(setting["optim.lr"]) <= 1e-2
        assert 0 <= float(setting["method.scale"]) <= 1


def test_domains_say_what_they_hold():
    space = {"a": Choice(("1-2", "1-4")), "b": Integers(1, 4), "c": Layers(4), "d": Uniform(0.0, 0.5)}
    told = {key: str(domain) for key, domain in space.items()}
    assert told == {"a": "1-2, 1-4", "b": "1 to 4, whole numbers", "c": "any range within 1-4", "d": "0 to 0.5"}
    assert Uniform(1, 2) != LogUniform(1, 2)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (64, "64"), (0.0, "0"), (0.123456, "0.1235"), (1e-5, "1e-05"), ("both", "both")]
)
def test_values_are_written_as_set_takes_them(value, text):
    assert written(value) == text


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
def test_quotes_keep_commas_and_every_value_stays_the_text_that_it_was(text, values):
    key, domain = parse_grid(text)
    assert (key, domain.values) == (text.partition("=")[0], values)


def test_a_value_with_a_comma_is_told_from_two():
    assert str(Choice(("q,v", "q"))) == "'q,v', q"
    assert str(Choice(("a, b",))) != str(Choice(("a", "b")))  # or two sweeps would have one name


# --------------------------------------------------------------------------------------------- ranges of layers


def test_every_range_of_three_layers():
    assert every_range(3) == ("1-1", "1-2", "1-3", "2-2", "2-3", "3-3")


def test_the_papers_ranges_in_the_toy_towers_and_in_deeper_ones():
    ranges = ("1-6", "1-12", "7-12", "8-12", "10-12")
    assert [scaled(text, 4) for text in ranges] == ["1-2", "1-4", "3-4", "3-4", "4-4"]
    assert [scaled(text, 24) for text in ranges] == ["1-12", "1-24", "13-24", "15-24", "19-24"]
    assert [scaled(text, 12) for text in ranges] == list(ranges)


def test_numbers_of_layers_are_scaled_too_and_all_and_none_stay():
    assert [scaled(text, 4) for text in ("0", "1", "6", "7", "12", "all")] == ["0", "1", "2", "3", "4", "all"]
    with pytest.raises(UserError, match="8-12"):
        scaled("last", 4)


@settings(deadline=None)
@given(depth=DEPTHS, data=st.data())
def test_scaled_ranges_lie_within_the_tower_and_keep_their_order(depth, data):
    range_ = st.sampled_from(every_range(12))
    one, other = data.draw(range_), data.draw(range_)
    (start, stop), (start_, stop_) = ends(scaled(one, depth)), ends(scaled(other, depth))
    assert 1 <= start <= stop <= depth
    for mine, theirs, before, after in zip(ends(one), ends(other), (start, stop), (start_, stop_), strict=True):
        assert mine > theirs or before <= after
    if depth <= 12:  # the plain formula
        assert (start, stop) == tuple(-(-layer * depth // 12) for layer in ends(one))


@settings(deadline=None)
@given(depth=st.integers(12, 48), cut=st.integers(1, 11))
def test_in_deeper_towers_ranges_that_meet_still_meet(depth, cut):
    (first, before), (after, last) = ends(scaled(f"1-{cut}", depth)), ends(scaled(f"{cut + 1}-12", depth))
    assert (first, after, last) == (1, before + 1, depth)
