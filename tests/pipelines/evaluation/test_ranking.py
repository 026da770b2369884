"""Retrieval metrics against full matrices, scipy's average ranks and scikit-learn's recall; memory by blocks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import top_k_accuracy_score

from pipelines.evaluation.ranking import ranks, retrieval_metrics
from pipelines.training.errors import DivergedError


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def clip4clip(video, text, owner):
    """Ranks of CLIP4Clip's evaluation of several sentences: the full matrix, padded; v2t by each set's best caption."""
    sim = text @ video.T
    t2v = [rankdata(-row)[owner[i]] for i, row in enumerate(sim)]
    sets = np.stack([sim[owner == v].max(axis=0) for v in range(len(video))])  # (sets, videos)
    v2t = [rankdata(-column)[v] for v, column in enumerate(sets.T)]
    return np.array(t2v), np.array(v2t)


def summary(found):
    return {f"R@{k}": 100 * sum(r <= k for r in found) / len(found) for k in (1, 5, 10)} | {
        "MdR": float(np.median(found)),
        "MnR": float(np.mean(found)),
    }


small = st.integers(-2, 2).map(float)  # products are exact, and tie often


@given(st.data(), st.integers(1, 6), st.integers(1, 7))
def test_every_tie_counts_half(data, videos, block):
    owner = np.array(
        data.draw(st.permutations([*range(videos), *data.draw(st.lists(st.integers(0, videos - 1), max_size=8))]))
    )
    video, text = (
        np.array(data.draw(st.lists(st.lists(small, min_size=2, max_size=2), min_size=n, max_size=n)), dtype=np.float32)
        for n in (videos, len(owner))
    )
    t2v, v2t = clip4clip(video, text, owner)
    assert ranks(text, video, owner, block).tolist() == t2v.tolist()
    found = retrieval_metrics(video, text, owner, block=block)
    assert found["t2v"] == pytest.approx(summary(t2v))
    assert found["v2t"] == pytest.approx(summary(v2t))


@pytest.mark.parametrize("captions", [1, 3])
def test_against_the_full_matrix(captions):
    rng = np.random.default_rng(0)
    video = unit(rng, 80, 16)
    owner = rng.permutation(np.repeat(np.arange(80), captions))
    text = video[owner] + 1.3 * unit(rng, len(owner), 16)
    t2v, v2t = clip4clip(video, text, owner)
    found = retrieval_metrics(video, text, owner, block=37)
    assert found["t2v"] == pytest.approx(summary(t2v))
    assert found["v2t"] == pytest.approx(summary(v2t))
    for k in (1, 5, 10):
        recall = 100 * top_k_accuracy_score(owner, text @ video.T, k=k, labels=np.arange(80))
        assert found["t2v"][f"R@{k}"] == pytest.approx(recall)
    assert 10 < found["t2v"]["R@1"] < 90


def test_repeated_captions_tie_exactly_wherever_they_stand():
    """1k-A has the same caption for several videos: each is half right, whatever a matrix product rounds."""
    rng = np.random.default_rng(1)
    for count in (7, 130, 1001):
        video, text = unit(rng, count, 512), unit(rng, count, 512)
        text[:] = video  # each caption is nearest to its own video
        text[-1] = text[0]
        video[-1] = video[0]
        expected = np.ones(count)
        expected[[0, -1]] = 1.5
        assert ranks(text, video, np.arange(count)).tolist() == expected.tolist()
        assert ranks(video, text, np.arange(count), 64).tolist() == expected.tolist()


def test_a_constant_model_earns_nothing_by_ties():
    same = np.ones((101, 4), dtype=np.float32) / 2
    found = retrieval_metrics(same, same, np.arange(101))
    assert found["t2v"] == found["v2t"] == {"R@1": 0, "R@5": 0, "R@10": 0, "MdR": 51, "MnR": 51}


def test_undecodable_videos_are_wrong_and_have_the_worst_rank():
    perfect = np.eye(6, dtype=np.float32)
    found = retrieval_metrics(perfect, perfect, np.arange(6), lost_videos=2, lost_captions=6)
    assert found["t2v"]["R@1"] == 50
    assert found["t2v"]["MnR"] == (6 * 1 + 6 * 8) / 12
    assert found["v2t"]["R@1"] == found["v2t"]["R@10"] == 75  # wrong, though there are but 8
    assert found["v2t"]["MnR"] == (6 * 1 + 2 * 8) / 8


def test_features_that_cannot_be_ranked_are_refused():
    rng = np.random.default_rng(0)
    video, text = unit(rng, 3, 4), unit(rng, 3, 4)
    with pytest.raises(ValueError, match="captions belong to 2 of 3 videos"):
        retrieval_metrics(video, text, np.array([0, 0, 2]))
    text[1, 2] = np.nan
    with pytest.raises(DivergedError):
        retrieval_metrics(video, text, np.arange(3))


def test_memory_is_that_of_a_block():
    rng = np.random.default_rng(0)
    video, text, owner = unit(rng, 1500, 8), unit(rng, 4500, 8), np.repeat(np.arange(1500), 3)
    tracemalloc.start()
    retrieval_metrics(video, text, owner, block=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 64 * 4500 < len(video) * len(text)  # a full matrix would be four times the last
