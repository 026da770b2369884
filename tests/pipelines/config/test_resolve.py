"""Presets, overrides and complaints."""

from __future__ import annotations

import dataclasses
import json

import pytest
from fakes import FakeStore, split_of

from pipelines.config.plain import to_plain
from pipelines.config.record import from_plain
from pipelines.config.resolve import help_lines, resolve
from pipelines.config.rules import check
from pipelines.config.schema import DataConfig, TrainConfig
from pipelines.planning import plan
from pipelines.planning.text import describe_plan
from vlmodels import methods
from vlmodels.errors import UserError
from vlmodels.methods.base import Preset, Recipe

BASE = TrainConfig(data=DataConfig(dir="data"))


def test_preset_then_override():
    config = resolve(method="msta", preset="fewshot", base=BASE, overrides=["method.dims=64", "optim.lr=0.5"])
    assert config.method_config["dims"] == 64
    assert config.method_config["layers"] == "8-12"
    assert (config.optim.lr, config.optim.epochs, config.optim.batch_size) == (0.5, 50, 32)


def test_plain_round_trip_keeps_everything():
    config = resolve(method="msta", preset="fewshot", base=BASE, overrides=["optim.precision=bf16", "seed=3"])
    assert from_plain(json.loads(json.dumps(to_plain(config)))) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=1", ["optim.lrr", "did you mean 'lr'"]),
        ("optim=1", ["optim", "group"]),
        ("optim.lr.x=1", ["optim.lr", "has no parts"]),
        ("optim.epochs=many", ["optim.epochs", "whole number"]),
        ("optim.precision=fp23", ["optim.precision", "did you mean 'fp32'"]),
        ("scale.gpu=maybe", ["scale.gpu", "true or false"]),
        ("lr", ["key=value"]),
        ("method.dimss=1", ["method.dimss", "did you mean 'dims'"]),
    ],
)
def test_wrong_override_names_key_and_remedy(override, words):
    with pytest.raises(UserError) as error:
        resolve(method="msta", preset=None, base=BASE, overrides=[override])
    assert all(word in str(error.value) for word in words), error.value


def test_all_wrong_overrides_are_told_at_once():
    with pytest.raises(UserError) as error:
        resolve(method="msta", preset=None, base=BASE, overrides=["a=1", "optim.lr=x", "method.dims=-1"])
    assert str(error.value).count(";") >= 2


def test_unknown_method_and_preset_suggest():
    with pytest.raises(UserError, match="did you mean 'msta'"):
        resolve(method="mstaa", preset=None, base=BASE)
    with pytest.raises(UserError, match="did you mean 'b2n'"):
        resolve(method="msta", preset="b2nn", base=BASE)


def test_check_lists_every_bad_value():
    bad = dataclasses.replace(
        BASE,
        data=DataConfig(dir="", crops=2),
        optim=dataclasses.replace(BASE.optim, lr=0, batch_size=1),
        scale=dataclasses.replace(BASE.scale, workers=2),
        augment=dataclasses.replace(BASE.augment, flip=2.0),
        selection="select",
    )
    problems = check(bad)
    assert len(problems) == 6
    for word in ("--data", "data.crops=2", "optim.lr", "scale.workers=2", "augment.flip", "protocol.holdout"):
        assert any(word in problem for problem in problems), word
    assert check(BASE) == []


@pytest.mark.parametrize(
    "override",
    ["optim.beta2=1.5", "optim.weight_decay=-1", "optim.warmup_epochs=50", "optim.lr=inf", "optim.eps=0",
     "scale.cpus_per_worker=-1", "scale.regrow_s=-1", "seed=-1", "optim.warmup_epochs=-1", "optim.label_smoothing=1",
     "augment.mixup=-1", "augment.cutmix=inf", "augment.mixup=nan"],
)  # fmt: skip
def test_values_that_would_only_fail_in_a_worker_are_refused(override):
    (problem,) = check(resolve(method="msta", preset=None, base=BASE, overrides=[override]))
    assert override.partition("=")[0].split(".")[-1] in problem


def test_digest_ignores_scale_place_and_tracking_only():
    assert BASE.digest() == dataclasses.replace(BASE, out="elsewhere").digest()
    assert BASE.digest() == dataclasses.replace(BASE, scale=dataclasses.replace(BASE.scale, workers=7)).digest()
    assert BASE.digest() == dataclasses.replace(BASE, data=DataConfig(dir="moved")).digest()
    for field in ("optim.lr=9", "seed=5", "augment.flip=0.1", "protocol.shots=3", "data.crops=3", "method.dims=8"):
        assert resolve(method="msta", preset=None, base=BASE, overrides=[field]).digest() != BASE.digest()


def test_every_preset_of_every_method_resolves():
    seen = 0
    for name in methods.names():
        for preset in methods.get(name).presets:
            config = resolve(method=name, preset=preset, base=BASE)
            assert check(config) == []
            seen += 1
    assert seen >= 6


def test_a_recipe_fills_settings_of_both_groups_and_overrides_win(monkeypatch):
    told = {
        "lr": 0.3, "epochs": 12, "batch_size": 72, "warmup_epochs": 2, "min_lr_ratio": 0.0, "schedule": "restarted",
        "weight_decay": 0.01, "no_decay": "biases", "beta1": 0.8, "beta2": 0.999, "eps": 1e-6, "label_smoothing": 0.1,
        "mixup": 0.8, "cutmix": 1.0, "crop": "short_side", "randaugment": True, "flip": 0.1, "jitter": 0.3, "gray": 0.4,
    }  # fmt: skip
    assert {f.name for f in dataclasses.fields(Recipe)} - {"frames"} == set(told)
    cls = methods.get("msta")
    monkeypatch.setattr(cls, "presets", {"told": Preset(cls.Config(), Recipe(frames=16, **told))})
    config = resolve(method="msta", preset="told", base=BASE, overrides=["augment.cutmix=0", "optim.eps=1e-7"])
    found = dataclasses.asdict(config.optim) | dataclasses.asdict(config.augment)
    assert {name: found[name] for name in told} == told | {"cutmix": 0.0, "eps": 1e-7}
    assert config.data == BASE.data
    assert check(config) == []


def test_a_pass_of_one_clip_is_refused_before_a_worker_starts(monkeypatch, tmp_path):
    class Store(FakeStore):
        manifest, classes, digest, folder, uri, name = None, ("a", "b"), "digest", tmp_path, str(tmp_path), "fake"

    monkeypatch.setattr(plan, "ClipStore", lambda folder: Store())
    monkeypatch.setattr(plan, "clips_of", lambda manifest: ())
    monkeypatch.setattr(
        plan, "make_split", lambda *args, scoring, **kwargs: dataclasses.replace(split_of(Store()), scoring=scoring)
    )
    base = resolve(method="msta", preset=None, base=BASE, overrides=["method.alpha=0", "optim.micro_batch=1",
                                                                    "optim.batch_size=8"])  # fmt: skip
    assert "mixup=0.0" in describe_plan(plan.plan_run(base))
    mixed = dataclasses.replace(base, augment=dataclasses.replace(base.augment, mixup=0.8))
    with pytest.raises(UserError, match=r"pass with one clip; set optim\.micro_batch=2, or augment\.mixup=0"):
        plan.plan_run(mixed)
    plan.plan_run(dataclasses.replace(mixed, optim=dataclasses.replace(mixed.optim, epochs=0, warmup_epochs=0)))


def test_help_lists_every_setting():
    text = help_lines()
    for group in ("backbone", "data", "augment", "protocol", "optim", "scale", "tracking"):
        for field in dataclasses.fields(getattr(BASE, group)):
            assert f"{group}.{field.name}=" in text


def test_overrides_of_a_method_are_taken_together():
    for order in (("method.vc=0", "method.score_mode=text"), ("method.score_mode=text", "method.vc=0")):
        config = resolve(method="m2clip", preset=None, base=TrainConfig(), overrides=order)
        assert (config.method_config["vc"], config.method_config["score_mode"]) == (0.0, "text")
    with pytest.raises(UserError) as caught:
        resolve(
            method="msta", preset=None, base=TrainConfig(), overrides=["method.dims=0", "optim.lr=-1", "optim.lrr=1"]
        )
    assert all(words in str(caught.value) for words in ("dims=0", "optim.lr=-1", "did you mean 'lr'"))
