"""Training on pairs: the same with one worker or two; what is embedded and ranked; what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pair_ranks import CAPTIONS, COLOURS, CPU, STORE, in_two_ranks, pair_loop, trained
from tiny_clip import disturb, tiny_frames, tiny_method
from torch.nn import functional

from pipelines.config.schema import AugmentConfig, DataConfig, OptimConfig, ScaleConfig, TrainConfig
from pipelines.evaluation.pairs import embed_captions, embed_pairs, embed_videos, pair_metrics
from pipelines.protocols.split import EvalSet, Example
from pipelines.shards.views import views
from pipelines.training.errors import DivergedError
from pipelines.training.pairs import PairModel, pair_problems
from vlmodels import methods
from vlmodels.preprocess import eval_views

NAMES = (
    "msta",
    "viltclip",
    "m2clip",
    "finetune",
)  # finetune trains the logit scale too, viltclip has a term of its own
TEST = EvalSet(
    "test",
    (),
    tuple(Example(f"clip{i}", i) for i in range(7)),
    unscored=(("lost.mp4", "zero bytes"),),
    captions=tuple(CAPTIONS[2 * i : 2 * i + 1 + i % 2] for i in range(7)),
    lost_captions=3,
)
DATA = DataConfig(clips=2, crops=3)


def test_top1_is_the_share_of_videos_whose_caption_is_nearest(monkeypatch):
    method = tiny_method(methods.get("viltclip"))
    model = PairModel(method)
    captions = ["a bike", "tea", "tea"]
    text = method.encode_captions(captions)
    monkeypatch.setattr(method, "encode_video", lambda _: text.detach())
    output = model(tiny_frames(3), captions)
    assert output.top1 == 1  # a repeated caption is not wrong
    expected = method.pair_losses(text, captions)
    assert {name: term.item() for name, term in output.terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}
    )
    monkeypatch.setattr(method, "encode_video", lambda _: text.detach()[[1, 0, 2]])
    assert float(model(tiny_frames(3), captions).top1) == pytest.approx(1 / 3)


# --------------------------------------------------------------------------------------------- one rank and two


def both_kinds(rank, world):
    """Everything that two ranks are compared in, in one go: processes are slow to start."""
    method = pair_loop("msta").method
    found = embed_pairs(disturb(method), STORE, TEST, DATA, device=CPU, batch=8, rank=rank, world=world)
    runs = {name: trained(name, rank, world) for name in NAMES}
    runs["passes"] = trained("msta", rank, world, micro_batch=2)  # 8 pairs in 2 passes; alone, passes of 4
    return runs, found


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return in_two_ranks(both_kinds, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("run", [*NAMES, "passes"])
def test_two_workers_learn_what_one_learns(two_ranks, run):
    alone = trained("msta", micro_batch=4) if run == "passes" else trained(run)
    for runs, _ in two_ranks:
        found = runs[run]
        for one, two in zip(alone["gradients"], found["gradients"], strict=True):
            assert torch.allclose(two, one, rtol=1e-3, atol=1e-5 * float(one.abs().max()) + 1e-8)
        terms = alone["history"][0].keys() - {"seconds", "data_wait", "clips_per_second"}
        terms -= {"network_wait", "network_bytes_per_step"}
        assert {"loss", "contrastive", "train_top1"} <= terms
        for one, two in zip(alone["history"], found["history"], strict=True):
            assert {key: two[key] for key in terms} == pytest.approx({key: one[key] for key in terms}, rel=1e-3)
    assert any(gradient.any() for gradient in alone["gradients"])
    first, second = (runs[run]["state"] for runs, _ in two_ranks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_every_rank_has_all_features(two_ranks):
    method = disturb(pair_loop("msta").method)
    alone = embed_pairs(method, STORE, TEST, DATA, device=CPU, batch=8)
    for _, found in two_ranks:
        assert np.allclose(found.video, alone.video, atol=1e-5)
        assert np.allclose(found.text, alone.text, atol=1e-5)
        assert found.owner.tolist() == alone.owner.tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6]


# ------------------------------------------------------------------------------------------------------ scoring


def test_a_video_is_the_unit_mean_of_its_views():
    method = disturb(pair_loop("viltclip").method).eval()
    found = embed_videos(method, STORE, TEST.examples[:2], DATA, device=CPU, batch=2)
    with torch.no_grad():
        for i, row in enumerate(found):
            frames = eval_views(torch.from_numpy(views(STORE, f"clip{i}", 2)), method.backbone.spec, crops=3)
            expected = functional.normalize(method.encode_video(frames).mean(0), dim=0)
            assert np.allclose(row, expected.numpy(), atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_the_same_caption_is_embedded_once_whatever_the_batch():
    method, seen = tiny_method(methods.get("zeroshot")), []
    method.backbone.model.token_embedding.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    captions = ["tea", "a bike", "tea", "word " * 40, "jump", "tea"]
    found = embed_captions(method, captions, device=CPU, batch=3)
    assert seen == [3, 1]
    assert np.array_equal(found[0], found[2])
    with torch.no_grad():
        assert np.allclose(found, method.encode_captions(captions).numpy(), atol=1e-6)


def test_what_trained_is_found_and_the_metrics_have_their_counts():
    loop = pair_loop("finetune", epochs=6, lr=6e-4)
    history = []
    loop.run(lambda _epoch, metrics, _optimizer: history.append(metrics))
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    test = EvalSet(
        "test",
        (),
        tuple(Example(f"clip{i}", i) for i in range(4)),
        captions=tuple((f"a {c} picture",) for c in COLOURS),
    )
    found = pair_metrics(test, embed_pairs(loop.method, STORE, test, DataConfig(), device=CPU, batch=8))
    assert found["t2v"]["R@1"] == found["v2t"]["R@1"] == 100
    assert found["chance"] == 25
    found = pair_metrics(TEST, embed_pairs(loop.method, STORE, TEST, DataConfig(), device=CPU, batch=8))
    assert [found[name] for name in ("n_listed", "n_scored", "n_quarantined", "n_captions")] == [8, 7, 1, 13]
    assert found["t2v"]["R@10"] == pytest.approx(100 * 10 / 13)  # the lost video's captions are wrong


def test_features_that_are_no_numbers_are_refused():
    loop = pair_loop("msta")
    with torch.no_grad():
        loop.parameters[0].fill_(torch.nan)
    with pytest.raises(DivergedError, match="no numbers as features"):
        embed_videos(loop.method, STORE, TEST.examples, DataConfig(), device=CPU, batch=8)


# ------------------------------------------------------------------------------------------------------ mistakes


def test_settings_that_pairs_cannot_have_are_told_together():
    omniclip = methods.get("omniclip")
    config = TrainConfig(
        optim=OptimConfig(batch_size=10, label_smoothing=0.1),
        augment=AugmentConfig(mixup=0.8, cutmix=1.0),
        scale=ScaleConfig(workers=4),
    )
    method = tiny_method(omniclip)
    told = pair_problems(config, method)
    assert len(told) == 3
    for said in (
        "set method.head=text_fixed",
        "set optim.batch_size=12",
        "set augment.mixup=0, augment.cutmix=0, optim.label_smoothing=0",
    ):
        assert any(said in problem for problem in told), told
    fine = TrainConfig(optim=OptimConfig(batch_size=12), scale=ScaleConfig(workers=4))
    assert pair_problems(fine, tiny_method(omniclip, omniclip.Config(head="text_fixed"))) == []


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 2}, {"micro_batch": -1}, {"epochs": 0}])
def test_what_is_told_elsewhere_or_never_trains_is_left_alone(wrong):
    config = TrainConfig(optim=OptimConfig(**{"batch_size": 8} | wrong), scale=ScaleConfig(workers=3))
    mixed = dataclasses.replace(config, augment=AugmentConfig(mixup=0.8))
    assert pair_problems(config, tiny_method(methods.get("msta"))) == []
    assert pair_problems(mixed, tiny_method(methods.get("zeroshot"))) == []


@pytest.mark.parametrize(("batch", "micro", "workers", "fits"), [(8, 1, 1, False), (8, 1, 2, True), (1, 0, 1, False)])
def test_a_pass_of_one_pair_is_refused(batch, micro, workers, fits):
    config = TrainConfig(optim=OptimConfig(batch_size=batch, micro_batch=micro), scale=ScaleConfig(workers=workers))
    told = pair_problems(config, tiny_method(methods.get("msta")))
    assert (not told) == fits
    assert fits or "leaves a pass with one pair" in told[0]
