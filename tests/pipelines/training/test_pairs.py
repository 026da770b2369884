"""Training on pairs: the same with one worker or two; what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pipelines.config.schema import AugmentConfig, OptimConfig, ScaleConfig, TrainConfig
from pipelines.training.pairs import PairModel, pair_problems
from tests.helpers.pair_ranks import in_two_ranks, trained
from tests.helpers.tiny_clip import tiny_frames, tiny_method
from vlmodels import methods

NAMES = (
    "msta",
    "viltclip",
    "m2clip",
    "finetune",
)  # finetune trains the logit scale too, viltclip has a term of its own


class GivenVideo(methods.get("viltclip")):
    """A method that finds the same features in any videos."""

    given = None

    def encode_video(self, frames):
        return self.given


def test_top1_is_the_share_of_videos_whose_caption_is_nearest():
    method = tiny_method(GivenVideo)
    model = PairModel(method)
    captions = ["a bike", "tea", "tea"]
    text = method.encode_captions(captions)
    method.given = text.detach()
    output = model(tiny_frames(3), captions)
    assert output.top1 == 1  # a repeated caption is not wrong
    expected = method.pair_losses(text, captions)
    assert {name: term.item() for name, term in output.terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}
    )
    method.given = text.detach()[[1, 0, 2]]
    assert float(model(tiny_frames(3), captions).top1) == pytest.approx(1 / 3)


# --------------------------------------------------------------------------------------------- one rank and two


def train_all(rank, world):
    """Train everything that two ranks are compared in, in one go: processes are slow to start."""
    runs = {name: trained(name, rank, world) for name in NAMES}
    runs["passes"] = trained("msta", rank, world, micro_batch=2)  # 8 pairs in 2 passes; alone, passes of 4
    return runs


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return in_two_ranks(train_all, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("run", [*NAMES, "passes"])
def test_two_workers_learn_what_one_learns(two_ranks, run):
    alone = trained("msta", micro_batch=4) if run == "passes" else trained(run)
    for runs in two_ranks:
        found = runs[run]
        for one, two in zip(alone["gradients"], found["gradients"], strict=True):
            assert torch.allclose(two, one, rtol=1e-3, atol=1e-5 * float(one.abs().max()) + 1e-8)
        terms = alone["history"][0].keys() - {"seconds", "data_wait", "clips_per_second"}
        terms -= {"network_wait", "network_bytes_per_step"}
        assert {"loss", "contrastive", "train_top1"} <= terms
        for one, two in zip(alone["history"], found["history"], strict=True):
            assert {key: two[key] for key in terms} == pytest.approx({key: one[key] for key in terms}, rel=1e-3)
    assert any(gradient.any() for gradient in alone["gradients"])
    first, second = (runs[run]["state"] for runs in two_ranks)
    assert all(torch.equal(first[key], second[key]) for key in first)


# ------------------------------------------------------------------------------------------------------ mistakes


def test_settings_that_pairs_cannot_have_are_reported_together():
    omniclip = methods.get("omniclip")
    config = TrainConfig(
        optim=OptimConfig(batch_size=10, label_smoothing=0.1),
        augment=AugmentConfig(mixup=0.8, cutmix=1.0),
        scale=ScaleConfig(workers=4),
    )
    method = tiny_method(omniclip)
    problems = pair_problems(config, method)
    assert len(problems) == 3
    for words in (
        "set method.head=text_fixed",
        "set optim.batch_size=12",
        "set augment.mixup=0, augment.cutmix=0, optim.label_smoothing=0",
    ):
        assert any(words in problem for problem in problems), problems
    fine = TrainConfig(optim=OptimConfig(batch_size=12), scale=ScaleConfig(workers=4))
    assert pair_problems(fine, tiny_method(omniclip, omniclip.Config(head="text_fixed"))) == []


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 2}, {"micro_batch": -1}, {"epochs": 0}])
def test_what_is_reported_elsewhere_or_never_trains_is_left_alone(wrong):
    config = TrainConfig(optim=OptimConfig(**{"batch_size": 8} | wrong), scale=ScaleConfig(workers=3))
    mixed = dataclasses.replace(config, augment=AugmentConfig(mixup=0.8))
    assert pair_problems(config, tiny_method(methods.get("msta"))) == []
    assert pair_problems(mixed, tiny_method(methods.get("zeroshot"))) == []


@pytest.mark.parametrize(("batch", "micro", "workers", "fits"), [(8, 1, 1, False), (8, 1, 2, True), (1, 0, 1, False)])
def test_a_pass_of_one_pair_is_refused(batch, micro, workers, fits):
    config = TrainConfig(optim=OptimConfig(batch_size=batch, micro_batch=micro), scale=ScaleConfig(workers=workers))
    problems = pair_problems(config, tiny_method(methods.get("msta")))
    assert (not problems) == fits
    assert fits or "leaves a pass with one pair" in problems[0]
