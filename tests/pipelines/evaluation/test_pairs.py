"""Retrieval: what is embedded, by one rank and by two, and how it is ranked and counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.evaluation.pairs import embed_captions, embed_pairs, embed_videos, pair_counts, rank_pairs
from pipelines.evaluation.reading import EvalSettings
from pipelines.protocols.split import EvalSet, Example
from pipelines.shards.views import views
from pipelines.training.errors import DivergedError
from tests.helpers.pair_ranks import CAPTIONS, COLOURS, CPU, STORE, in_two_ranks, pair_loop
from tests.helpers.tiny_clip import disturb, tiny_method
from vlmodels import methods
from vlmodels.preprocess import eval_views

TEST = EvalSet(
    "test",
    (),
    tuple(Example(f"clip{i}", i) for i in range(7)),
    unscored=(("lost.mp4", "zero bytes"),),
    captions=tuple(CAPTIONS[2 * i : 2 * i + 1 + i % 2] for i in range(7)),
    lost_captions=3,
)
SETTINGS = EvalSettings(CPU, batch=8, clips=2, crops=3)


def embed(rank, world):
    method = disturb(pair_loop("msta").method)
    return embed_pairs(method, STORE, TEST, EvalSettings(CPU, batch=8, clips=2, crops=3, rank=rank, world=world))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return in_two_ranks(embed, tmp_path_factory.mktemp("ranks"))


def metrics_of(method, test):
    found = embed_pairs(method, STORE, test, EvalSettings(CPU, batch=8))
    return {**rank_pairs(test, found), **pair_counts(test, found)}


def test_every_rank_has_all_features(two_ranks):
    method = disturb(pair_loop("msta").method)
    alone = embed_pairs(method, STORE, TEST, SETTINGS)
    for found in two_ranks:
        assert np.allclose(found.video, alone.video, atol=1e-5)
        assert np.allclose(found.text, alone.text, atol=1e-5)
        assert found.owner.tolist() == alone.owner.tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6]


def test_a_video_is_the_unit_mean_of_its_views():
    method = disturb(pair_loop("viltclip").method).eval()
    found = embed_videos(method, STORE, TEST.examples[:2], EvalSettings(CPU, batch=2, clips=2, crops=3))
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
    found = embed_captions(method, captions, EvalSettings(CPU, batch=3))
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
    found = metrics_of(loop.method, test)
    assert found["t2v"]["R@1"] == found["v2t"]["R@1"] == 100
    assert found["chance"] == 25
    found = metrics_of(loop.method, TEST)
    assert [found[name] for name in ("n_listed", "n_scored", "n_quarantined", "n_captions")] == [8, 7, 1, 13]
    assert found["t2v"]["R@10"] == pytest.approx(100 * 10 / 13)  # the lost video's captions are wrong


def test_features_that_are_not_finite_are_refused():
    loop = pair_loop("msta")
    with torch.no_grad():
        loop.parameters[0].fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"features .*optim\.lr"):
        embed_videos(loop.method, STORE, TEST.examples, EvalSettings(CPU, batch=8))
