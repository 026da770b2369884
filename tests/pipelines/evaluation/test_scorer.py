"""What a run holds out and tests is scored among the right classes, and those that train come back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.config.schema import DataConfig, TrainConfig
from pipelines.evaluation.metrics import harmonic_mean
from pipelines.evaluation.reading import ORDERS
from pipelines.evaluation.scorer import Scorer
from pipelines.protocols.split import EvalSet, Example
from tests.helpers.fakes import FakeStore, split_of
from tests.helpers.pair_ranks import CAPTIONS, CPU, in_two_ranks, make_method

STORE = FakeStore()
NAMES = tuple(f"class {i}" for i in range(4))
OTHERS = ("a dog", "a cat", "a horse")
DESCRIPTIONS = {"spatial": {name: [f"{name} in a room"] for name in NAMES}}
SPLIT = dataclasses.replace(split_of(STORE), select=STORE.examples[:6])


def scorer_of(method, split=SPLIT, config=None, **ranks):
    return Scorer(method, {"": STORE}, split, config or TrainConfig(), device=CPU, **ranks)


def test_classes_hold_for_a_block_and_those_before_come_back():
    method = make_method("msta")
    scorer = scorer_of(method)
    with scorer.classes(NAMES, DESCRIPTIONS):
        with scorer.classes(OTHERS):
            assert (method.classes, method.descriptions) == (OTHERS, None)
        assert (method.classes, method.descriptions) == (NAMES, DESCRIPTIONS)
        scorer.held_out()
        scorer.test(SPLIT.tests[0])
        assert (method.classes, method.descriptions) == (NAMES, DESCRIPTIONS)


def test_without_names_nothing_is_set():
    method = make_method("viltclip")
    with scorer_of(method).classes(()):
        assert method.classes == ()


def test_after_an_error_the_ranks_do_not_wait_for_each_other():
    """Putting classes back is a collective: a rank that failed must not enter it."""
    method = make_method("msta")
    scorer = scorer_of(method)
    with scorer.classes(NAMES), pytest.raises(OSError, match="gone"), scorer.classes(OTHERS):
        raise OSError("gone")
    assert method.classes == OTHERS


def test_held_out_classes_have_their_own_accuracy():
    novel = EvalSet("novel", OTHERS, tuple(Example(f"clip{i}", i % 3) for i in range(6, 12)))
    plain = scorer_of(make_method("msta")).held_out()
    found = scorer_of(make_method("msta"), dataclasses.replace(SPLIT, select_novel=novel)).held_out()
    assert set(plain) == {"top1", "top5"}
    assert set(found) == {"top1", "top5", "novel", "hm"}
    assert {name: found[name] for name in plain} == plain
    assert found["novel"] == scorer_of(make_method("msta")).test(novel).metrics["top1"]
    assert found["hm"] == harmonic_mean(found["top1"], found["novel"])


def test_held_out_captions_are_found_among_each_other():
    pairs = tuple(Example(f"clip{i}", 2 * i) for i in range(6))
    split = dataclasses.replace(SPLIT, train_classes=(), captions=CAPTIONS, select=pairs)
    found = scorer_of(make_method("viltclip"), split).held_out()
    test = EvalSet("test", (), pairs, captions=tuple((CAPTIONS[2 * i],) for i in range(6)))
    result = scorer_of(make_method("viltclip")).test(test)
    assert found == {"top1": result.top1, "top5": result.metrics["t2v"]["R@5"]}
    assert set(result.predictions) == {"clip_id", "video", "text", "owner"}
    assert result.metrics["n_captions"] == 6


@pytest.mark.parametrize(("selection", "names"), [("select", {"top1", "top5"}), ("test-best", {"top1"})])
def test_an_epoch_is_chosen_on_held_out_clips_or_on_the_first_test_set(selection, names):
    scorer = scorer_of(make_method("msta"), config=dataclasses.replace(TrainConfig(), selection=selection))
    found = scorer.selection()
    assert set(found) == names
    expected = scorer.test(SPLIT.tests[0]).top1 if selection == "test-best" else scorer.held_out()["top1"]
    assert found["top1"] == expected


def test_a_test_set_gives_metrics_and_predictions():
    test = dataclasses.replace(SPLIT.tests[0], unscored=(("lost.mp4", "zero bytes"),))
    config = TrainConfig(data=DataConfig(clips=2, crops=3))
    plain = scorer_of(make_method("msta"), config=config).test(test)
    probed = scorer_of(make_method("msta"), config=config).test(test, probe=True)
    assert set(probed.metrics.pop("probe")) == set(ORDERS)
    assert probed.metrics == plain.metrics
    assert (plain.metrics["n_listed"], plain.metrics["n_scored"], plain.metrics["n_quarantined"]) == (25, 24, 1)
    assert plain.top1 == plain.metrics["top1"]
    shapes = {name: (array.shape, array.dtype.kind) for name, array in plain.predictions.items()}
    width = make_method("msta").backbone.spec.embed_dim
    assert shapes == {
        "clip_id": ((24,), "U"),
        "target": ((24,), "i"),
        "score": ((24, 4), "f"),
        "video": ((24, width), "f"),
        "text": ((4, width), "f"),
    }
    assert np.allclose(plain.predictions["score"].sum(axis=1), 1, atol=1e-5)


def test_a_temperature_changes_no_score_and_gives_the_answers_of_a_predictor():
    config = TrainConfig(data=DataConfig(clips=2, crops=3))
    scorer = scorer_of(make_method("msta"), config=config)
    plain, warm = (scorer.test(SPLIT.tests[0], temperature=temperature) for temperature in (None, 3.0))
    assert warm.metrics == plain.metrics
    for name, array in plain.predictions.items():
        assert np.array_equal(warm.predictions[name], array), name
    assert np.allclose(warm.scores.scaled.sum(axis=1), 1, atol=1e-5)
    found = scorer.answers(SPLIT.tests[0], warm, 3.0)
    assert np.array_equal(found.confidence, warm.scores.scaled.max(axis=1))
    assert (found.confidence < found.plain).all()
    assert found.known.all()


def test_videos_of_other_classes_are_answered_among_the_trained_ones():
    novel = EvalSet("novel", (*OTHERS, NAMES[2]), tuple(Example(f"clip{i}", i % 4) for i in range(8)))
    lost = EvalSet("novel", OTHERS, tuple(Example(f"clip{i}", 0) for i in range(8, 11)))
    split = dataclasses.replace(SPLIT, tests=(novel,), unseen=(lost,))
    scorer = scorer_of(make_method("msta"), split)
    found = scorer.answers(novel, scorer.test(novel, temperature=1.0), 1.0)
    assert found.known.tolist() == [i % 4 == 3 for i in range(8)] + [False] * 3
    among = scorer.test(dataclasses.replace(SPLIT.tests[0], examples=STORE.examples[:11])).predictions["score"]
    assert np.allclose(found.confidence, among.max(axis=1), atol=1e-6)
    other = dataclasses.replace(novel, data="/elsewhere")
    assert scorer.answers(other, scorer.test(novel), 1.0) is None


def test_what_is_held_out_decides_and_retrieval_has_no_classes():
    novel = EvalSet("novel", OTHERS, tuple(Example(f"clip{i}", i % 3) for i in range(6, 12)))
    found = scorer_of(make_method("msta"), dataclasses.replace(SPLIT, select_novel=novel)).decide()
    assert (found.sets["select"]["known"], found.sets["select"]["unknown"]) == (6, 6)
    assert scorer_of(make_method("msta"), dataclasses.replace(SPLIT, select=())).decide() is None
    assert scorer_of(make_method("viltclip"), dataclasses.replace(SPLIT, captions=CAPTIONS)).decide() is None


def score_all(rank, world):
    scorer = scorer_of(make_method("msta"), rank=rank, world=world)
    result = scorer.test(SPLIT.tests[0], probe=True)
    decided = scorer.decide()
    return scorer.held_out(), {**result.metrics, "decided": decided.notes}, dict(result.predictions)


def test_two_ranks_score_what_one_scores(tmp_path):
    held_out, metrics, predictions = score_all(0, 1)
    for found in in_two_ranks(score_all, tmp_path):
        assert found[:2] == (held_out, metrics)
        assert all(np.array_equal(found[2][name], predictions[name]) for name in ("clip_id", "target"))
        assert np.allclose(found[2]["score"], predictions["score"], atol=1e-5)
