"""Which pictures a sweep gets."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pipelines.sweeps.report.pictures import ablation_bars, sweep_pictures
from pipelines.sweeps.report.rows import setting_rows
from tests.helpers.sweep_records import ABLATION, PRINTED, layers_trial, sweep_of, trial_of


@pytest.fixture
def drawn(tmp_path):
    """Draw the pictures of records; returns their names."""

    def draw(sweep, trials):
        found = sweep_pictures(sweep, setting_rows(sweep, trials), trials, tmp_path)
        assert all((tmp_path / picture.file).read_bytes().startswith(b"\x89PNG") for picture in found)
        return {picture.file.removesuffix(".png") for picture in found}

    return draw


def test_pictures_are_drawn_where_the_records_are_enough(drawn):
    rng = random.Random(0)
    ranges = [f"{a}-{b}" for a in range(1, 5) for b in range(a, 5)]
    trials = [
        layers_trial(text, rng.uniform(40, 60), scores=50.0, cost={"trainable": 1000 * (n + 1), "step_seconds": 0.25})
        for n, text in enumerate(ranges)
    ]
    assert drawn(sweep_of(), trials) == {"insertion_method_layers", "front", "curves"}
    assert "ablation" in drawn(sweep_of(ablation=ABLATION, space={}), trials)


def test_a_search_of_several_settings_has_coordinates_and_a_map_of_each_tower(drawn):
    rng = random.Random(0)
    apart = [
        trial_of({"method.layers": a, "method.text_layers": b, "optim.lr": str(rng.uniform(1e-4, 1e-2))}, status=status)
        for a in ("1-2", "3-4")
        for b in ("1-4", "2-2")
        for status in ("finished", "pruned", "diverged")
    ]
    assert drawn(sweep_of(scored_on_test=False), apart) == {
        "insertion_method_layers",
        "insertion_method_text_layers",
        "coordinates",
        "curves",
    }


def printed_on_bars(sweep, trials):
    bars = ablation_bars(sweep, setting_rows(sweep, trials))
    return {(number, column.metric): value for (number, column), value in bars.printed.items()}


def test_published_diamonds_stand_at_columns_of_the_same_name(drawn):
    b2n, trials = sweep_of(ablation=ABLATION, space={}), [layers_trial("3-4", scores=50.0)]
    assert printed_on_bars(b2n, trials) == {
        (n, metric): value
        for n in (0, 1)
        for metric, value in zip(("base", "novel", "HM"), PRINTED[n + 1][2], strict=True)
    }
    assert "ablation" in drawn(b2n, trials)
    ablation = replace(ABLATION, columns=("K400-tiny", "toy-ucf", "Top-5"))
    supervised = sweep_of("supervised", ablation=ablation, space={})
    trials = [layers_trial("3-4", scores=50.0, protocol="supervised")]
    assert printed_on_bars(supervised, trials) == {
        (0, "top1"): 53.1,
        (1, "top1"): 53.5,
        (0, "top5"): 59.6,
        (1, "top5"): 60.1,
    }
    assert "ablation" in drawn(supervised, trials)
    ablation = replace(ABLATION, columns=("R@1", "R@5", "MnR"))
    retrieval = sweep_of("retrieval", ablation=ablation, space={})
    trials = [layers_trial("3-4", scores=0.0, protocol="retrieval")]
    assert printed_on_bars(retrieval, trials) == {(n, "t2v R@1"): PRINTED[n + 1][2][0] for n in (0, 1)}


def test_only_an_ablation_with_test_scores_has_bars():
    trials = [layers_trial("3-4", scores=50.0)]
    assert ablation_bars(sweep_of(), setting_rows(sweep_of(), trials)) is None
    ablation = sweep_of(ablation=ABLATION, space={})
    assert ablation_bars(ablation, setting_rows(ablation, [layers_trial("3-4")])) is None
