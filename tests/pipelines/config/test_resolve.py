"""Presets and overrides: what they set, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.config.check import check
from pipelines.config.resolve import help_lines, resolve, with_recipe
from pipelines.config.schema import DataConfig, TrainConfig
from vlmodels import methods
from vlmodels.errors import UserError
from vlmodels.methods.base import Recipe

BASE = TrainConfig(data=DataConfig(dir="data"))


def test_preset_then_override():
    config = resolve(method="msta", preset="fewshot", base=BASE, overrides=["method.dims=64", "optim.lr=0.5"])
    assert config.method_config["dims"] == 64
    assert config.method_config["layers"] == "8-12"
    assert (config.optim.lr, config.optim.epochs, config.optim.batch_size) == (0.5, 50, 32)


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


def test_all_wrong_overrides_are_in_one_message():
    with pytest.raises(UserError) as error:
        resolve(method="msta", preset=None, base=BASE, overrides=["a=1", "optim.lr=x", "method.dims=-1"])
    assert str(error.value).count(";") >= 2


def test_unknown_method_and_preset_suggest():
    with pytest.raises(UserError, match="did you mean 'msta'"):
        resolve(method="mstaa", preset=None, base=BASE)
    with pytest.raises(UserError, match="did you mean 'b2n'"):
        resolve(method="msta", preset="b2nn", base=BASE)


def test_every_preset_of_every_method_resolves():
    seen = 0
    for name in methods.names():
        for preset in methods.get(name).presets:
            config = resolve(method=name, preset=preset, base=BASE)
            recipe = methods.get(name).presets[preset].recipe
            assert (config.optim, config.augment) == (
                with_recipe(BASE, recipe).optim,
                with_recipe(BASE, recipe).augment,
            )
            assert check(config) == []
            seen += 1
    assert seen >= 6


def test_a_recipe_fills_settings_of_both_groups_and_overrides_win():
    published = {
        "lr": 0.3, "epochs": 12, "batch_size": 72, "warmup_epochs": 2, "min_lr_ratio": 0.0, "schedule": "restarted",
        "weight_decay": 0.01, "no_decay": "biases", "beta1": 0.8, "beta2": 0.999, "eps": 1e-6, "label_smoothing": 0.1,
        "mixup": 0.8, "cutmix": 1.0, "crop": "short_side", "randaugment": True, "flip": 0.1, "jitter": 0.3, "gray": 0.4,
    }  # fmt: skip
    assert {f.name for f in dataclasses.fields(Recipe)} - {"frames"} == set(published)
    base = with_recipe(BASE, Recipe(frames=16, **published))
    config = resolve(method="msta", preset=None, base=base, overrides=["augment.cutmix=0", "optim.eps=1e-7"])
    found = dataclasses.asdict(config.optim) | dataclasses.asdict(config.augment)
    assert {name: found[name] for name in published} == published | {"cutmix": 0.0, "eps": 1e-7}
    assert config.data == BASE.data
    assert check(config) == []


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
