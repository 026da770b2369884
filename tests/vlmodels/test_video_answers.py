"""Every video has one answer, whatever the others are."""

from __future__ import annotations

import base64
import threading

import numpy as np
import pytest
import torch

from tests.helpers.tiny_clip import CLASSES, disturb
from tests.helpers.videofiles import write_video
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.msta import MSTA
from vlmodels.predictor import Predictor
from vlmodels.run_folder import Decision
from vlmodels.video_answers import Question, VideoAnswers
from vlmodels.video_sources import VideoSources


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    method = disturb(MSTA(create("toy", weights="toy", num_frames=4), MSTA.Config(dims=8, scale=0.1)))
    method.set_classes(CLASSES)
    return Predictor(method)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", frames=20)


@pytest.fixture
def answers(predictor):
    return VideoAnswers(predictor, VideoSources())


def test_good_and_bad_videos_are_answered_in_order(answers, predictor, video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:700])
    content = base64.b64encode(video.read_bytes()).decode()
    found = answers([None, str(video), str(broken), content, "/no.mp4", *[str(video)] * 20], Question(topk=2))
    assert [one.status for one in found] == ["failed", "ok", "failed", "ok", "failed", *["ok"] * 20]
    expected = predictor(video, topk=2)
    for one in found:
        assert bool(one.reason) == (one.status == "failed")
        if one.status == "ok":
            assert [p.label for p in one.predictions] == [p.label for p in expected]
            assert [p.probability for p in one.predictions] == pytest.approx(
                [p.probability for p in expected], abs=1e-5
            )
    assert "broken.mp4" in found[2].reason


def test_a_copy_is_named_as_it_was_given(answers, video):
    (found,) = answers([base64.b64encode(video.read_bytes()[:700]).decode()], Question())
    assert found.status == "failed"
    assert found.reason.startswith("the base64 video: ")
    assert "/tmp" not in found.reason


def test_an_unforeseen_error_is_that_video_s(answers, predictor, video, monkeypatch):
    read_views = predictor.read_views

    def fail(path):
        if "odd" in str(path):
            raise RuntimeError("decoder fell over")
        return read_views(path)

    monkeypatch.setattr(predictor, "read_views", fail)
    odd = video.with_name("odd.mp4")
    odd.write_bytes(b"")
    assert [one.status for one in answers([str(odd), str(video)], Question())] == ["failed", "ok"]


def test_labels_views_and_threshold_are_those_asked_for(answers, predictor, video):
    trained = answers([str(video)], Question())
    asked = Question(labels=("a dog", "a cat"), topk=9, threshold=1.0)
    (other,) = answers([str(video)], asked)
    assert {p.label for p in other.predictions} == {"a dog", "a cat"}
    assert other.status == "none"
    assert "none of these" in other.reason
    (views,) = answers([str(video)], Question(clips=2))
    own = Predictor(predictor.method, clips=2)(video, labels=CLASSES)
    assert [p.probability for p in views.predictions] == pytest.approx([p.probability for p in own], abs=1e-5)
    assert answers([str(video)], Question()) == trained


def test_the_model_s_own_threshold_is_for_its_own_classes(predictor, video):
    decided = Predictor(predictor.method, decision=Decision(threshold=1.0))
    decided.classes = CLASSES
    answers = VideoAnswers(decided, VideoSources())
    assert answers([str(video)], Question())[0].status == "none"
    assert answers([str(video)], Question(threshold=0.0))[0].status == "ok"
    assert answers([str(video)], Question(labels=("a", "b")))[0].status == "ok"
    assert answers([str(video)], Question(clips=2))[0].status == "none"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topk": 0}, "topk=0"),
        ({"threshold": 1.5}, r"threshold=1\.5"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"clips": 0}, "clips=0"),
        ({"clips": 10**6}, "clips"),
        ({"labels": ("one",)}, "at least 2"),
        ({"labels": ("a", "a")}, "a"),
    ],
)
def test_questions_that_mean_nothing_are_refused_before_a_video_is_read(answers, settings, words):
    with pytest.raises(UserError, match=words):
        answers(["/never/read.mp4"], Question(**settings))


def test_scores_that_are_not_finite_are_no_answer(answers, predictor, video, monkeypatch):
    score = predictor.score
    monkeypatch.setattr(predictor, "score", lambda views: type(score(views))(np.full((1, 3), np.nan), np.zeros((1, 1))))
    (found,) = answers([str(video)], Question())
    assert (found.status, found.predictions) == ("failed", ())


def test_threads_do_not_answer_each_other_s_question(answers, video):
    wrong = []

    def ask(labels):
        for _ in range(4):
            (found,) = answers([str(video)], Question(labels=labels))
            wrong.extend(p.label for p in found.predictions if p.label not in labels)

    threads = [threading.Thread(target=ask, args=((f"a{n}", f"b{n}"),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
