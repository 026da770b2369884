"""What a plan at scale says: counts against brute force, costs against real training, speeds by their sources."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.big_data import make
from pipelines.config.resolve import resolve
from pipelines.config.schema import ScaleConfig, TrainConfig
from pipelines.ingestion.decode import DecodeSettings
from pipelines.planning import forecast, rates
from pipelines.planning.costs import step_cost
from pipelines.planning.plan import plan_run
from pipelines.planning.text import describe_plan
from pipelines.shards.clip_store import ClipStore
from pipelines.training.build import build_method
from pipelines.training.parts import Parts
from tests.helpers.fakes import record_json
from vlmodels import methods
from vlmodels.clip import create
from vlmodels.errors import UserError

SETTINGS = ("optim.batch_size=16", "optim.epochs=2", "optim.warmup_epochs=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1000 + 100 videos of 5 classes, in 18 shards."""
    out = tmp_path_factory.mktemp("big") / "data"
    settings = DecodeSettings(frames=4, size=48, pool=2)
    return make(out, train=1000, test=100, classes=5, shape=(12, 56, 77, 3), settings=settings)


@pytest.fixture
def planned(folder, tmp_path):
    """Makes a plan for a number of workers."""

    def plan(*settings, method="msta", workers=1, gpu=False):
        base = TrainConfig(
            backbone=dataclasses.replace(TrainConfig().backbone, pretrained="toy"),
            data=dataclasses.replace(TrainConfig().data, dir=str(folder)),
            protocol=dataclasses.replace(TrainConfig().protocol, name="supervised"),
            scale=ScaleConfig(workers=workers, gpu=gpu),
            out=str(tmp_path / "runs"),
        )
        extra = ("method.alpha=0",) if method == "msta" else ()
        return plan_run(resolve(method=method, preset=None, base=base, overrides=[*SETTINGS, *extra, *settings]))

    return plan


def text_of(plan):
    return "\n".join(forecast.forecast(plan))


def test_the_forecast_of_a_large_run_has_all_parts(planned):
    said = text_of(planned("data.parts=8", workers=8, gpu=True))
    for words in ("8 x 1 GPU", "62 steps an epoch, 124 in all", "2 clips a worker in 1 pass", "of its own",
                  "with data.parts=1: from any of 16 shards", "frozen", "gradients", "AdamW", "activations of 2 clips",
                  "ring all-reduce", "with 8 workers", "with 1 worker", "takes longest"):  # fmt: skip
        assert words in said
    assert "no epoch of this kind was measured on a GPU" in said
    assert "ASSUMED" in said
    assert "few_shot.py" in said


def test_more_workers_than_shards_is_noted_and_accepted(planned):
    note = "more workers (17) than shards (16): several read the same one"
    assert note in describe_plan(planned("optim.batch_size=17", workers=17))
    assert "shards" not in describe_plan(planned(workers=16))


def test_only_a_dry_run_looks_ahead(planned):
    plan = planned(workers=2)
    assert "expected" not in describe_plan(plan)
    assert describe_plan(plan, ahead=True).startswith(describe_plan(plan))
    assert "expected" in describe_plan(plan, ahead=True)


@pytest.mark.parametrize("workers", [2, 5, 16])
def test_shards_are_those_that_the_ranks_read(planned, folder, workers):
    plan = planned(f"data.parts={workers}", workers=workers)
    layout, store = forecast.layout_of(plan), ClipStore(folder)
    cut = Parts.cut(store, plan.split.train, 16, workers)
    read = [
        {store.place(plan.split.train[i].clip_id)[0] for step in cut.steps(1, epoch, group, workers) for i in step}
        for group in range(workers)
        for epoch in (0,)
    ]
    assert layout.parts == workers
    for group, own in enumerate(read):
        assert own <= {store.place(plan.split.train[i].clip_id)[0] for i in cut.own(group, workers)}
    assert layout.apart.fewest <= max(map(len, read)) <= layout.apart.most < layout.anywhere.most == 16
    assert layout.drawn == pytest.approx(4 * 56 * 77 * 3, rel=0.03)  # 4 of 12 stored frames


def test_more_parts_than_a_batch_has_clips_are_not_offered(planned):
    plan = planned(workers=4)
    config = dataclasses.replace(plan.config, scale=ScaleConfig(workers=17))
    assert forecast.layout_of(dataclasses.replace(plan, config=config)).apart is None


@given(st.integers(2, 1000))
def test_ring_all_reduce_sends_each_byte_less_than_twice(world):
    chunk = 4 * 1000 / world
    assert forecast.ring_bytes(1000, world) == pytest.approx(2 * (world - 1) * chunk)
    assert forecast.ring_bytes(1000, 1) == 0


# ----------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize("name", ["msta", "lora", "linear", "m2clip", "viltclip", "finetune"])
def test_costs_are_those_of_real_training(name):
    """Multiply-accumulates on meta tensors equal those of a step on numbers; losses are small in comparison."""
    from torch.utils.flop_counter import FlopCounterMode

    cls, names = methods.get(name), ("flying a kite", "running")
    config = cls.Config(**({"alpha": 0.0} if name == "msta" else {}))
    with torch.device("meta"):
        shape = cls(create("toy", weights=None, num_frames=4), config, names)
    cost = step_cost(shape, 4, names)
    real = cls(create("toy", weights="toy", num_frames=4), config, names).train()
    real.set_classes(names)
    real(torch.randn(2, 4, 3, 48, 48), torch.tensor([0, 1]))  # what is computed once is behind it
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see through it
    labels = torch.tensor([0, 1, 0])
    try:
        with FlopCounterMode(display=False) as counter:
            sum(real.losses(real(torch.randn(3, 4, 3, 48, 48), labels), labels).values()).backward()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    assert cost.gmacs(3) == pytest.approx(counter.get_total_flops() / 2e9, rel=0.08)
    assert (cost.text.training > 0) == (not real.backbone.text_is_frozen())
    assert cost.gmacs(6, 2) == pytest.approx(2 * cost.gmacs(3))


@pytest.mark.parametrize("loss", ["froster", "taco"])
def test_a_teachers_pass_counts(loss):
    cls, names = methods.get("adaptformer"), ("flying a kite", "running")

    def cost(regularise):
        with torch.device("meta"):
            method = cls(create("toy", weights=None, num_frames=4), cls.Config(regularise=regularise), names)
        return step_cost(method, 4, names)

    plain, held = cost("none"), cost(loss)
    teacher = held.clip.training - plain.clip.training
    if loss == "taco":  # its teacher is the method
        assert teacher == pytest.approx(plain.clip.forward)
    assert 0.7 * plain.clip.forward < teacher <= 1.0001 * plain.clip.forward
    assert held.clip.kept == plain.clip.kept


def test_what_is_kept_grows_with_clips_and_frames():
    with torch.device("meta"):
        method = methods.get("adaptformer")(create("toy", weights=None, num_frames=4))
        linear = methods.get("linear")(create("toy", weights=None, num_frames=4), classes=("a", "b"))
    four, eight = (step_cost(method, frames, ("a", "b")) for frames in (4, 8))
    assert eight.clip.kept == pytest.approx(2 * four.clip.kept, rel=0.02)
    assert four.kept(3) - four.kept(2) == four.clip.kept
    assert step_cost(linear, 4, ("a", "b")).clip.kept < four.clip.kept / 50  # nothing is kept below a head


# ---------------------------------------------------------------------------------------------------------- speeds


def record(plan, name="old", finished="2026-01-02T00:00:00Z", workers=2, **changes):
    from pipelines.config.record import shown

    config = shown(plan.config)
    config["scale"]["workers"] = workers
    epoch = {"epoch": 1.0, "loss": 1.0, "seconds": 62.0, "data_wait": 6.2, "network_wait": 12.4}
    facts = {"trainable": 1, "train_clips": 1000, "machine": "Linux, 2 CPUs", "device": "cpu"}
    return {
        **record_json("supervised", plan.config.method),
        "name": name,
        "finished": finished,
        "config": config,
        "facts": {**facts, "frames": plan.facts.frames},
        "cost": {"step_seconds": 1.0, "scored_views_per_second": 50.0},
        "history": [{**epoch, "epoch": 0.0, "seconds": 90.0}, epoch],
        "metrics": {"val1": {"top1": 50.0, "top5": 60.0, "n_listed": 100, "n_scored": 100}},
        "seconds": {"total": 190.0, "train": 152.0},
        **changes,
    }


def leave(plan, **fields):
    found = record(plan, **fields)
    folder = f"{plan.config.out}/{found['name']}"
    from pathlib import Path

    Path(folder).mkdir(parents=True)
    (Path(folder) / "run.json").write_text(json.dumps(found))


def cost_of(plan):
    method = build_method(plan.config, frames=4, classes=plan.split.train_classes, meta=True)
    return step_cost(method, 4, plan.split.train_classes)


def test_a_run_of_the_same_kind_gives_its_speed(planned):
    plan = planned(workers=2)
    leave(plan)
    leave(plan, name="older", finished="2025-01-02T00:00:00Z", cost={"step_seconds": 9.0})
    cost = cost_of(plan)
    found = rates.rates_for(plan, cost, 1000)
    step = forecast.step_of(plan, cost, found, drawn=1000, world=2)
    assert step.compute == pytest.approx((62 - 6.2 - 12.4) / 62)
    assert step.waiting == pytest.approx(0.1)
    assert step.network == pytest.approx(0.2)
    assert step.seconds == pytest.approx(1.0)  # what was measured comes out again
    assert forecast.step_of(plan, cost, found, 1000, world=4).network == pytest.approx(0.2 * (3 / 4) / (1 / 2))
    assert found.views == 25
    assert found.start == pytest.approx(190 - 152 - 2)
    assert forecast.scoring_seconds(plan, cost, found, 4) == pytest.approx(1.0)
    said = text_of(plan)
    assert "measured in old (2026-01-02, 2 workers, Linux, 2 CPUs)" in said
    assert "network 1.25" not in said


@pytest.mark.parametrize(
    "other", ["optim.precision=bf16", "scale.cpus_per_worker=2", "backbone.name=toy-viclip", "scale.gpu=true"]
)
def test_runs_of_another_kind_give_none(planned, other):
    plan = planned(workers=2)
    leave(plan)
    other = planned(other, workers=2)
    assert not any("measured in" in line for line in rates.rates_for(other, cost_of(other), 1000).sources)


def test_damaged_records_are_passed_over(planned, tmp_path):
    plan = planned(workers=2)
    leave(plan, name="gone", history=[])
    leave(plan, name="bad", cost=None)
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "run.json").write_text("{")
    (tmp_path / "runs" / "empty").mkdir()
    assert "2 cores x86-64" in rates.rates_for(plan, cost_of(plan), 1000).sources[0]


def test_an_out_that_cannot_be_read_is_no_mistake(planned):
    plan = planned()
    plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, out="nothing://there/runs"))
    assert "could be read" in rates.rates_for(plan, cost_of(plan), 1000).sources[0]


def test_assumptions_are_replaced_by_the_environment(planned, monkeypatch):
    plan = planned(workers=4, gpu=True)
    before = rates.rates_for(plan, cost_of(plan), 1000)
    monkeypatch.setenv(rates.ASSUME, "gpu=100,network=2.5")
    after = rates.rates_for(plan, cost_of(plan), 1000)
    assert after.gmacs == 50_000
    assert before.gmacs == 3_900
    assert after.assumed.network == 2.5
    assert after.assumed.disk == before.assumed.disk
    assert "100 TFLOP/s is ASSUMED" in text_of(plan)
    for wrong in ("gpus=3", "gpu", "disk=0", "network=fast", "gpu=nan"):
        monkeypatch.setenv(rates.ASSUME, wrong)
        with pytest.raises(UserError, match=rates.ASSUME):
            rates.rates_for(plan, cost_of(plan), 1000)


def test_the_longest_part_is_named():
    assert forecast.Step(3, 1, 2, 2.5).bound == "compute"
    assert forecast.Step(1, 1, 2, 1).bound == "data"
    assert forecast.Step(1, 0, 0, 2).bound == "network"
    assert forecast.Step(3, 1, 2, 2.5).seconds == 6.5
    assert forecast.Step(1, 0, 5, 1).seconds == 6


def test_without_training_the_forecast_has_only_scoring(planned):
    said = text_of(planned(method="zeroshot", workers=4))
    assert "scoring" in said
    assert "training" not in said
    assert "step" not in said


def test_a_batch_on_a_small_gpu_can_be_cut(planned):
    whole, cut = (
        forecast.forecast(planned(s, workers=2, gpu=True)) for s in ("optim.micro_batch=0", "optim.micro_batch=2")
    )
    assert "activations of 8 clips" in "".join(whole)
    assert "activations of 2 clips" in "".join(cut)
    assert "8 clips a worker in 4 passes" in cut[0]


@pytest.mark.parametrize(
    ("size", "words"),
    [(12, "12 B"), (4.18e6, "4.18 MB"), (1.063e12, "1.06 TB"), (999.9, "1 KB"), (4.2e15, "4.2e+03 TB")],
)
def test_amounts(size, words):
    assert forecast.amount(size) == words.replace("4.2e+03", "4.2e+03")


def test_spans():
    assert [forecast.span(s) for s in (0.5, 59, 90, 5400, 47 * 3600, 72 * 3600)] == [
        "0.5 s", "59 s", "1.5 min", "1.5 h", "47 h", "3 days"
    ]  # fmt: skip


def test_made_data_is_as_large_as_it_says(folder):
    store = ClipStore(folder)
    assert len(store) == 1100
    assert len(store.index.shards) == 18
    assert store.manifest.column("status").unique().to_pylist() == ["ok"]
    assert np.isclose(sum(s.bytes for s in store.index.shards), 1100 * 12 * 56 * 77 * 3, rtol=0.01)
