"""A sweep before it starts: what is tried, under which name, and every mistake that would stop all of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipelines.config.schema import ScaleConfig, TrainConfig
from pipelines.ingestion.decode import DecodeSettings
from pipelines.planning.plan import plan_run
from pipelines.sweeps.candidates import label_of, overridden
from pipelines.sweeps.flags import parse, winner_seeds
from pipelines.sweeps.plan import plan_sweep
from pipelines.sweeps.runner import at_a_time
from pipelines.sweeps.text import about, describe_sweep, registered_name
from tests.helpers.ingesting import in_process
from vlmodels.errors import UserError

SMALL = [
    part
    for setting in (
        *("method.alpha=0", "optim.batch_size=4", "optim.epochs=2", "optim.warmup_epochs=1", "protocol.shots=4"),
        *("augment.mixup=0", "augment.cutmix=0"),
    )
    for part in ("--set", setting)
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Ingested data without Ray: 8 classes of 8 clips of noise."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(64):
        path = root / "videos" / f"class {number % 8}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))

    with in_process() as here:
        settings = DecodeSettings(frames=4, size=48, pool=1)
        here.ingest(root / "videos", root / "data", settings, decode="tests.helpers.fake_decoders:fitting")
    return root / "data"


@pytest.fixture
def planned(clips):
    """Plan the sweep of a command line."""

    def plan(*arguments, small=SMALL):
        return plan_sweep(*parse(["--data", str(clips), *small, *arguments], ""))

    return plan


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
    alike = planned("--space", "layers", "--method", "adaptformer", small=SMALL[2:])
    assert ranges(alike) == ["1-1", "1-2", "1-3", "1-4", "2-2", "2-3", "2-4", "3-3", "3-4", "4-4"]
    apart = planned("--space", "layers-apart", "--method", "adaptformer", small=SMALL[2:])
    assert len(apart.space) == 2
    assert apart.count == 100
    assert len({candidate.id for candidate in apart.candidates}) == 100


def test_search_is_all_that_may_be_tuned_but_for_what_the_user_sets(planned):
    plan = planned("--space", "search", "--samples", "3")
    assert {"method.layers", "method.dims", "optim.lr", "optim.weight_decay"} <= set(plan.space)
    assert "method.alpha" not in plan.space  # SMALL sets it
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


def test_the_protocol_is_the_published_ablations_or_the_users(clips):
    def protocol(*arguments):
        return parse(["--data", str(clips), *arguments], "")[1]

    assert protocol("--space", "insertion") == "b2n"
    assert protocol("--method", "omniclip", "--space", "ratio") == "supervised"
    assert protocol("--method", "omniclip", "--space", "ratio", "--protocol", "few_shot") == "few_shot"
    assert protocol("--method", "omniclip", "--space", "search") == "b2n"


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
def test_what_cannot_be_a_sweep_is_one_message(clips, arguments, words):
    args, protocol = parse(["--data", str(clips), *SMALL, *arguments], "")
    with pytest.raises(UserError, match=words):
        plan_sweep(args, protocol)


def test_a_setting_that_cannot_be_built_is_its_trials_matter(planned):
    plan = planned("--grid", "method.layers=3-9,1-2,9-9")
    assert ranges(plan) == ["3-9", "1-2", "9-9"]
    assert plan.first.config.method_config["layers"] == "1-2"


def test_no_setting_that_can_be_built_ends_it_here_with_the_first_reasons(planned):
    with pytest.raises(UserError, match=r"none of 5 settings can be trained: .*3-9.*; and 2 other problems"):
        planned("--grid", "method.layers=3-9,4-9,5-9,6-9,7-9")
    with pytest.raises(UserError, match="did you mean 'layers'") as told:
        planned("--grid", "method.layer=1-2,3-4")
    assert str(told.value).count("did you mean") == 1  # the same of each setting is said once


def test_more_samples_are_the_same_sweep_and_another_question_is_another(planned):
    random = ("--space", "search", "--search", "random")
    three, five = (planned(*random, "--samples", count) for count in ("3", "5"))
    assert three.name == five.name
    assert [c.id for c in three.candidates] == [c.id for c in five.candidates[:3]]  # so a sweep goes on
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
    names = [planned(*arguments, small=SMALL[2:] if "--method" in arguments else SMALL).name for arguments in others]
    assert len({planned(*base).name, *names}) == 1 + len(others)
    assert planned(*base).name == planned(*base, "--concurrent", "1", "--out", "elsewhere").name


def test_a_setting_is_a_trial_of_each_seed(planned):
    plan = planned("--grid", "optim.lr=1e-3,3e-3", "--seeds", "1,2,3")
    assert [(c.label, c.seed) for c in plan.candidates] == [
        (f"lr={lr}", seed) for lr in ("1e-3", "3e-3") for seed in (1, 2, 3)
    ]
    assert len({c.id for c in plan.candidates}) == plan.count == 6


def test_a_candidate_is_the_setting_on_top_of_the_base(planned):
    plan = planned("--space", "insertion")
    config = overridden(plan.base, plan.candidates[0].setting, seed=7)
    assert config.method_config == {**plan.base.method_config, "layers": "1-2"}
    assert replace(config, method_config=plan.base.method_config, seed=1) == plan.base


def test_winner_seeds(clips):
    def seeds(text):
        return winner_seeds(parse(["--data", str(clips), f"--winner-seeds={text}"], "")[0])

    assert winner_seeds(parse(["--data", str(clips)], "")[0]) == (1, 2, 3)
    assert seeds("4,5,4") == (4, 5)
    assert seeds("0") == ()
    with pytest.raises(UserError, match="list of whole numbers"):
        seeds("1,b")
    with pytest.raises(UserError, match="list of whole numbers"):
        seeds("-1")


def test_what_keeps_a_winner_from_being_trained_is_told_before_the_first_trial(planned, monkeypatch):
    def without_list_of_3(config):
        if config.test and config.seed == 3:
            raise UserError("there is no training list of seed 3")
        return plan_run(config)

    monkeypatch.setattr("pipelines.planning.plan.plan_run", without_list_of_3)
    with pytest.raises(UserError, match="no training list of seed 3"):
        planned("--space", "layers")
    assert planned("--space", "layers", "--winner-seeds", "1,2").name
    assert planned("--space", "layers", "--winner-seeds", "0").name


def test_the_name_in_the_registry(planned, clips):
    plan = planned("--space", "insertion")

    def name(*arguments):
        return registered_name(parse(["--data", str(clips), *arguments], "")[0], plan)

    assert name() == "msta-b2n-data"
    assert name("--register", "my model") == "my-model"
    random = replace(plan, base=replace(plan.base, backbone=replace(plan.base.backbone, pretrained=None)))
    assert registered_name(parse(["--data", str(clips)], "")[0], random) is None


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


@pytest.mark.parametrize(
    ("scale", "cluster", "wanted", "count"),
    [
        ({}, {"CPU": 2}, 0, 2),
        ({}, {"CPU": 8}, 3, 3),
        ({}, {"CPU": 2}, 5, 2),
        ({"cpus_per_worker": 0.5}, {"CPU": 2}, 0, 4),
        ({"workers": 2}, {"CPU": 5}, 0, 2),
        ({"gpu": True}, {"CPU": 16, "GPU": 4}, 0, 4),
        ({"gpu": True, "gpus_per_worker": 1 / 3}, {"CPU": 16, "GPU": 1}, 0, 3),
        ({"gpu": True, "gpus_per_worker": 0.1, "cpus_per_worker": 2}, {"CPU": 8, "GPU": 1}, 0, 4),
        ({"gpu": True, "workers": 2}, {"CPU": 16, "GPU": 4}, 0, 2),
    ],
)
def test_as_many_trials_as_fit(scale, cluster, wanted, count):
    assert at_a_time(TrainConfig(scale=ScaleConfig(**scale)), cluster, wanted) == count


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({"workers": 3}, "a trial of 3 workers needs 3 CPUs of 2"),
        ({"gpu": True}, "1 GPUs of 0"),
        ({"cpus_per_worker": 4}, "4 CPUs of 2.*scale.cpus_per_worker lower"),
    ],
)
def test_a_trial_that_fits_nowhere_is_told(scale, words):
    with pytest.raises(UserError, match=words):
        at_a_time(TrainConfig(scale=ScaleConfig(**scale)), {"CPU": 2}, 0)


def test_a_dry_run_tells_each_setting_and_why_one_cannot_be_trained(planned):
    plan = planned("--grid", "method.layers=1-2,3-9")
    text = describe_sweep(plan, every=True)
    good, bad = (next(line for line in text.splitlines() if f"layers={layers}" in line) for layers in ("1-2", "3-9"))
    assert "parameters, " in good
    assert "cannot be trained: " in bad
    assert "4 layers" in bad
    for words in (
        plan.name,
        "msta (preset b2n) on toy",
        "2 (grid), 1 seed each, 2 epochs",
        "only the winner is tested",
    ):
        assert words in text
    assert "layers=3-9" not in describe_sweep(plan)


def test_a_long_dry_run_is_cut(planned):
    text = describe_sweep(planned("--space", "layers-apart", "--method", "adaptformer", small=SMALL[2:]), every=True)
    assert "... and 60 more" in text


def test_sweep_json_is_plain_and_says_what_was_asked(planned):
    plan = planned("--space", "insertion")
    record = json.loads(json.dumps(about(plan, None)))
    assert record["name"] == plan.name
    assert record["scored_on_test"]
    assert record["ablation"]["rows"][0]["setting"] == {"method.layers": "1-2"}
    assert record["depths"] == {"video": 4, "text": 4}
    assert record["objectives"] == [{"metric": "select.top1", "mode": "max"}]
    record["tracking"]["run_id"], record["started"] = "run-id", "2026-01-01T00:00:00Z"
    assert json.loads(json.dumps(about(plan, record))) == record  # of a later session
    assert about(plan, None)["tracking"]["key"] != record["tracking"]["key"]
