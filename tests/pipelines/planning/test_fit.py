"""Whether clips and settings fit together, before a worker starts."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.config.resolve import resolve
from pipelines.config.schema import BackboneConfig, DataConfig, TrainConfig
from pipelines.planning.fit import misfits, text_notes
from pipelines.planning.plan import plan_run
from pipelines.planning.text import describe_plan
from pipelines.training.build import build_method
from tests.helpers.fakes import FakeStore, split_of
from vlmodels.errors import UserError


@pytest.mark.ray
def test_a_pass_of_one_clip_is_refused_before_a_worker_starts(small_data):
    overrides = ["method.alpha=0", "optim.micro_batch=1", "optim.batch_size=8", "protocol.shots=4"]
    base = TrainConfig(data=DataConfig(dir=str(small_data)))
    config = resolve(method="msta", preset=None, base=base, overrides=overrides)
    assert "mixup=0.0" in describe_plan(plan_run(config))
    mixed = dataclasses.replace(config, augment=dataclasses.replace(config.augment, mixup=0.8))
    with pytest.raises(UserError, match=r"pass with one clip; set optim\.micro_batch=2, or augment\.mixup=0"):
        plan_run(mixed)
    plan_run(dataclasses.replace(mixed, optim=dataclasses.replace(mixed.optim, epochs=0, warmup_epochs=0)))


def test_a_weight_file_that_cannot_be_loaded_is_refused_before_a_worker_starts(tmp_path):
    weights = tmp_path / "toy.safetensors"
    weights.write_bytes(b"<html>not found</html>")
    base = TrainConfig(data=DataConfig(dir=str(tmp_path)), backbone=BackboneConfig(name="toy", pretrained=str(weights)))
    with pytest.raises(UserError, match=r"toy\.safetensors is not a toy CLIP weight file"):
        plan_run(resolve(method="zeroshot", preset=None, base=base, overrides=[]))


def test_a_test_set_with_the_name_of_another_score_is_refused():
    config = resolve(
        method="zeroshot",
        preset=None,
        base=TrainConfig(data=DataConfig(dir="data")),
        overrides=["backbone.pretrained=toy"],
    )
    store, split = FakeStore(), split_of(FakeStore())
    method = build_method(config, frames=4, classes=split.train_classes, meta=True)
    assert misfits(config, [store], split, method) == []
    names = [dataclasses.replace(test, name=name) for test, name in zip(split.tests, ("select", "hm"), strict=True)]
    select, hm = misfits(config, [store], dataclasses.replace(split, tests=tuple(names)), method)
    assert select == (
        "a test set cannot be called select, which is the score on held-out training clips in a run's record: "
        "name another (NAME=DIR)"
    )
    assert hm.startswith("a test set cannot be called hm, which is the harmonic mean")


def test_texts_that_lose_their_last_words_are_counted():
    base = TrainConfig(data=DataConfig(dir="data"))
    config = resolve(method="zeroshot", preset=None, base=base, overrides=["backbone.pretrained=toy"])
    split = split_of(FakeStore())
    method = build_method(config, frames=4, classes=split.train_classes, meta=True)
    long = "a " * method.backbone.spec.context_length
    assert text_notes(method, split, {"spatial": {"a": ["a square"]}}) == []
    (note,) = text_notes(method, split, {"spatial": {"a": ["a square", long]}, "temporal": {"a": [long]}})
    assert note.startswith(f"2 of 3 descriptions are longer than the {method.backbone.spec.context_length} tokens")
    assert "describe.py --context" in note
    (note,) = text_notes(method, dataclasses.replace(split, captions=("a square", long, long)), None)
    assert note.startswith("1 of 2 captions are longer")
