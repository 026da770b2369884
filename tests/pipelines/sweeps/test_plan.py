"""A sweep before it starts: what is tried, under which name, and every mistake that would stop all of it."""

from __future__ import annotations

import pytest

from pipelines.planning.plan import plan_run
from pipelines.sweeps.candidates import label_of
from tests.helpers.sweep_plans import SMALL, SMALL_MSTA
from vlmodels.errors import UserError


def settings_of(plan):
    return [dict(candidate.setting) for candidate in plan.candidates]


def ranges(plan, key="method.layers"):
    return [setting[key] for setting in settings_of(plan)]


def test_a_published_ablation_is_its_rows_and_equal_ones_are_one_trial(planned):
    plan = planned("--space", "insertion")
    assert plan.title == plan.ablation.title
    assert [row.label for row in plan.ablation.rows] == ["1→6", "1→12", "7→12", "8→12", "10→12"]
    assert ranges(plan) == ["1-2", "1-4", "3-4", "4-4"]  # 7→12 and 8→12 are one here
    assert any("7→12 and 8→12 are one" in note for note in plan.notes)
    assert plan.search.kind == "grid"
    assert plan.base.preset == "b2n"
    assert plan.name.startswith("sweep-msta-insertion-")


def test_layers_are_every_range_and_apart_of_each_tower(planned):
    alike = planned("--space", "layers", "--method", "adaptformer", small=SMALL)
    assert ranges(alike) == ["1-1", "1-2", "1-3", "1-4", "2-2", "2-3", "2-4", "3-3", "3-4", "4-4"]
    apart = planned("--space", "layers-apart", "--method", "adaptformer", small=SMALL)
    assert len(apart.space) == 2
    assert apart.count == 100
    assert len({candidate.id for candidate in apart.candidates}) == 100


def test_search_is_all_that_may_be_tuned_but_for_what_the_user_sets(planned):
    plan = planned("--space", "search", "--samples", "3")
    assert {"method.layers", "method.dims", "optim.lr", "optim.weight_decay"} <= set(plan.space)
    assert "method.alpha" not in plan.space  # SMALL_MSTA sets it
    assert plan.search.kind == "random"
    assert plan.count == 3
    assert all(set(setting) == set(plan.space) for setting in settings_of(plan))


def test_given_values_are_a_grid_in_order(planned):
    plan = planned("--grid", "optim.lr=1e-3,3e-3", "--grid", "method.layers=1-2,3-4")
    assert [label_of(setting) for setting in settings_of(plan)] == [
        *("lr=1e-3, layers=1-2", "lr=1e-3, layers=3-4", "lr=3e-3, layers=1-2", "lr=3e-3, layers=3-4"),
    ]


def test_given_values_on_top_of_an_ablation_are_tried_in_every_row(planned):
    plan = planned("--space", "insertion", "--grid", "optim.lr=1e-3,3e-3")
    assert plan.count == 4 * 2
    assert settings_of(plan)[:2] == [{"method.layers": "1-2", "optim.lr": lr} for lr in ("1e-3", "3e-3")]


def test_a_users_own_table(planned, tmp_path):
    table = """
        method = "msta"
        [mine]
        title = "How wide"
        source = "our own"
        protocol = "b2n"
        preset = "b2n"
        data = "ours"
        columns = ["Base"]
        rows = [
          { label = "narrow", set = { "method.dims" = "8" }, printed = [] },
          { label = "wide", set = { "method.dims" = "16" }, printed = [] },
        ]
    """
    (tmp_path / "own.toml").write_text(table)
    plan = planned("--space", f"{tmp_path}/own.toml:mine")
    assert plan.title == "How wide"
    assert ranges(plan, "method.dims") == ["8", "16"]
    with pytest.raises(UserError, match="pass --method msta"):
        planned("--space", f"{tmp_path}/own.toml:mine", "--method", "viltclip", small=[])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to try: name a --space"),
        (["--space", "layers", "--set", "selection=test-best"], "lets test scores choose"),
        (["--space", "layers", "--workers", "2", "--scheduler", "asha"], "pass --workers 1"),
        (["--grid", "optim.lr=1e-3", "--grid", "optim.lr=3e-3"], "by --grid twice"),
        (["--space", "layers", "--concurrent", "-1"], "must not be negative"),
        (["--space", "layers", "--objective", "cost.trainable:min"], "says nothing of accuracy"),
        (["--space", "layers", "--score-all", "--set", "protocol.holdout_classes=0.2"], "--score-all does not go"),
        (["--grid", "optim.lr=1e-3,0.001", "--search", "tpe", "--samples", "2"], "are one setting"),
        (["--space", "insertions"], "unknown space 'insertions' .did you mean 'insertion'.*spaces of msta: variants"),
        (["--space", "none.toml:mine"], "none.toml cannot be read"),
        (["--grid", "optim.lr"], "not of the form key=a,b,c"),
        (["--space", "search"], "a grid needs a list of values for method.scale"),
        (["--space", "insertion", "--samples", "3"], "leave out --samples"),
        (["--space", "insertion", "--search", "random", "--samples", "3"], "its rows: --search is grid"),
        (["--set", "optim.lr=1e-3", "--grid", "optim.lr=1e-3,3e-3"], "optim.lr: given by --set and tried"),
        (["--set", "method.layers=1-2", "--space", "insertion"], "method.layers: given by --set and tried"),
        (["--grid", "method.layers=1-2", "--space", "insertion"], "method.layers: given by --grid"),
        (["--grid", "seed=1,2"], "seed is the same for all trials"),
        (["--grid", "protocol.holdout=0.2,0.4"], "^protocol.holdout is the same for all trials[^;]*$"),
        (["--grid", "test=true,false"], "test is the same for all trials"),
        (["--space", "search", "--search", "tpe", "--samples", "3", "--seeds", "1,2"], "give one seed"),
        (["--space", "search", "--search", "tpe"], "--samples 20"),
        (["--grid", "optim.lr=1e-3,3e-3", "--scheduler", "asha", "--grace", "2"], "could not stop any trial"),
        (["--grid", "optim.lr=1e-3,3e-3,0.001"], "lr=1e-3 and lr=0.001 are one setting"),
    ],
)
def test_what_cannot_be_a_sweep_is_one_message(planned, arguments, words):
    with pytest.raises(UserError, match=words):
        planned(*arguments)


def test_a_setting_that_cannot_be_built_is_its_trials_matter(planned):
    plan = planned("--grid", "method.layers=3-9,1-2,9-9")
    assert ranges(plan) == ["3-9", "1-2", "9-9"]
    assert plan.first.config.method_config["layers"] == "1-2"


def test_no_setting_that_can_be_built_ends_it_here_with_the_first_reasons(planned):
    with pytest.raises(UserError, match=r"none of 5 settings can be trained: .*3-9.*; and 2 other problems"):
        planned("--grid", "method.layers=3-9,4-9,5-9,6-9,7-9")
    with pytest.raises(UserError, match="did you mean 'layers'") as error:
        planned("--grid", "method.layer=1-2,3-4")
    assert str(error.value).count("did you mean") == 1  # the same of each setting is in the message once


def test_more_samples_are_the_same_sweep_and_another_question_is_another(planned):
    random = ("--space", "search", "--search", "random")
    three, five = (planned(*random, "--samples", count) for count in ("3", "5"))
    assert three.name == five.name
    assert [c.id for c in three.candidates] == [c.id for c in five.candidates[:3]]  # so a sweep can continue
    base = ("--grid", "optim.lr=1e-3,3e-3")
    others = [
        (*base, "--objective", "select.top5"),
        (*base, "--objective", "select.top1", "--objective", "cost.step_seconds:max"),
        (*base, "--objective", "select.top1", "--objective", "cost.step_seconds:min"),
        ("--grid", "optim.lr=1e-3,4e-3"),
        (*base, "--seeds", "2"),
        (*base, "--seeds", "1,2"),
        (*base, "--search-seed", "2"),
        (*base, "--score-all"),
        (*base, "--set", "optim.weight_decay=0.1"),
        (*base, "--method", "adaptformer", "--set", "method.dims=8"),
    ]
    names = [planned(*arguments, small=SMALL if "--method" in arguments else SMALL_MSTA).name for arguments in others]
    assert len({planned(*base).name, *names}) == 1 + len(others)
    assert planned(*base).name == planned(*base, "--concurrent", "1", "--out", "elsewhere").name


def test_a_setting_is_a_trial_of_each_seed(planned):
    plan = planned("--grid", "optim.lr=1e-3,3e-3", "--seeds", "1,2,3")
    assert [(c.label, c.seed) for c in plan.candidates] == [
        (f"lr={lr}", seed) for lr in ("1e-3", "3e-3") for seed in (1, 2, 3)
    ]
    assert len({c.id for c in plan.candidates}) == plan.count == 6


def test_what_keeps_a_winner_from_being_trained_is_found_before_the_first_trial(planned):
    def without_list_of_3(config):
        if config.test and config.seed == 3:
            raise UserError("there is no training list of seed 3")
        return plan_run(config)

    with pytest.raises(UserError, match="no training list of seed 3"):
        planned("--space", "layers", plan_one=without_list_of_3)
    assert planned("--space", "layers", "--winner-seeds", "1,2", plan_one=without_list_of_3).name
    assert planned("--space", "layers", "--winner-seeds", "0", plan_one=without_list_of_3).name


def test_clips_are_held_out_unless_the_user_says_how_many(planned):
    base = ("--grid", "optim.lr=1e-3,3e-3")
    assert planned(*base).base.protocol.holdout == 0.2
    assert planned(*base, "--set", "protocol.holdout=0.4").base.protocol.holdout == 0.4
    assert planned(*base).search.objectives[0].metric == "select.top1"
    assert planned(*base).base.tracking.register is None
    with pytest.raises(UserError, match="nothing is held out to choose on"):
        planned(*base, "--set", "protocol.holdout=0")


def test_only_a_published_ablation_scores_every_trial_on_test(planned):
    classes = ("--set", "protocol.holdout_classes=0.5")
    assert planned("--space", "insertion").base.test
    assert not planned("--space", "insertion", "--set", "test=false").base.test
    assert not planned("--space", "insertion", *classes).base.test
    assert not planned("--space", "layers").base.test
    assert not planned("--space", "search", "--samples", "2").base.test
    assert planned("--space", "layers", "--score-all").base.test


def test_with_held_out_classes_the_harmonic_mean_chooses(planned):
    plan = planned("--space", "layers", "--set", "protocol.holdout_classes=0.5")
    assert plan.search.objectives[0].metric == "select.hm"
    assert plan.first.split.select_novel is not None


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("test.top1", "nothing is chosen by scores on the test lists"),
        ("hm", "did you mean 'select.hm'|nothing is chosen by scores on the test lists"),
        ("base.top1", "nothing is chosen by scores on the test lists"),
        ("select.topp1", "did you mean 'select.top1'.*: it is not measured"),
        ("cost.trainables", "did you mean 'cost.trainable'"),
        ("select.hm", "no classes are held out; set protocol.holdout_classes"),
        ("select.novel", "no classes are held out"),
        ("select.top1:most", "not of the form METRIC"),
    ],
)
@pytest.mark.parametrize("score_all", [False, True])
def test_what_may_not_choose_is_refused_with_the_reason(planned, objective, words, score_all):
    with pytest.raises(UserError, match=words):
        planned("--space", "layers", "--objective", objective, *(["--score-all"] * score_all))


def test_two_objectives_and_which_way_each_goes(planned):
    plan = planned(
        *("--space", "search", "--search", "tpe", "--samples", "4"),
        *("--objective", "select.top1", "--objective", "cost.trainable"),
    )
    assert [(o.metric, o.mode) for o in plan.search.objectives] == [("select.top1", "max"), ("cost.trainable", "min")]
    assert plan.candidates is None
    assert plan.count == 4
    with pytest.raises(UserError, match="different objectives"):
        planned("--space", "layers", "--objective", "select.top1", "--objective", "select.top1:min")
