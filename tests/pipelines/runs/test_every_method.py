"""Every method on both toy backbones, as the scripts run it but for Ray's workers: plan, train, save, load, predict."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig
from pipelines.planning.plan import plan_run
from pipelines.planning.text import describe_plan
from pipelines.shards.clip_store import ClipStore
from pipelines.training.build import build_loop, build_method
from pipelines.training.parts import Parts
from vlmodels import methods
from vlmodels.checkpoint import save_adapter
from vlmodels.predictor import load

SETTINGS = ("optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=4", "protocol.shots=4", "augment.mixup=0.8")
VARIANTS = [(name, ()) for name in methods.names()] + [
    ("aim", ("method.head=linear",)),
    ("st_adapter", ("method.head=linear",)),
    ("omniclip", ("method.head=linear",)),
    ("m2clip", ("method.score_mode=text", "method.vc=0")),
]


@pytest.mark.parametrize("backbone", ["toy", "toy-viclip"])
@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=lambda v: v if isinstance(v, str) else ",".join(v))
def test_plans_trains_saves_loads_and_predicts(small_data, tmp_path, name, settings, backbone):
    extra = ("method.alpha=0",) if name == "msta" else ()
    config = dataclasses.replace(
        TrainConfig(),
        backbone=dataclasses.replace(TrainConfig().backbone, name=backbone, pretrained="toy"),
        data=dataclasses.replace(TrainConfig().data, dir=str(small_data)),
    )
    plan = plan_run(resolve(method=name, preset=None, base=config, overrides=[*SETTINGS, *settings, *extra]))
    assert f"{plan.facts.trainable:,} of" in describe_plan(plan)
    store = ClipStore(plan.config.data.dir)
    torch.manual_seed(1)
    method = build_method(plan.config, frames=store.segments, classes=plan.split.train_classes)
    assert sum(p.numel() for p in method.trainable_parameters()) == plan.facts.trainable
    method.set_classes(plan.split.train_classes)
    if plan.facts.trainable:
        before = [p.detach().clone() for p in method.trainable_parameters()]
        history = train(method, store, plan)
        assert 0 < history[0]["loss"] < 100
        assert any(not torch.equal(a, b) for a, b in zip(before, method.trainable_parameters(), strict=True))
    save_adapter(tmp_path, method)

    predict = load(tmp_path)
    clip = store.frames(plan.split.train[0].clip_id)
    with torch.inference_mode():
        own = predict(torch.from_numpy(clip.copy()))
    assert {p.label for p in own} == set(plan.split.train_classes)
    assert sum(p.probability for p in own) == pytest.approx(1, abs=1e-4)
    mixed = predict(torch.from_numpy(clip.copy()), labels=[plan.split.train_classes[0], "swimming", "juggling balls"])
    assert sum(p.probability for p in mixed) == pytest.approx(1, abs=1e-4)


def train(method, store, plan):
    parts = Parts.cut(store, plan.split.train, plan.config.optim.batch_size, 1)
    loop = build_loop(plan.config, plan.split, method, store, parts, group=0, world=1, device=torch.device("cpu"))
    history = []
    loop.run(lambda _epoch, metrics, _optimizer: history.append(metrics))
    return history
