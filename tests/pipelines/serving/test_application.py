"""The Serve application on Ray: a slice of ``benchmarks/serve.py``, a replica that is lost, an alias that moves."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from benchmarks.serve import bare, load, questions, replicas, wrong
from pipelines.serving.application import Deployed, deploy, prepare_environment, remove
from pipelines.serving.limits import Limits
from pipelines.serving.model import ModelSettings
from tests.helpers.serving import serving
from tests.helpers.videofiles import write_video
from vlmodels import load as load_model

LIMITS = Limits(patience_s=2, decode_s=60)


@pytest.fixture(scope="module")
def backend(ray_session, model):
    prepare_environment()
    backend = deploy(Deployed(ModelSettings(str(model)), LIMITS, decoders=1, name="test"))
    yield backend
    remove("test")


@pytest.mark.ray
def test_sixty_requests_of_which_six_are_hostile_and_one_replica_that_is_killed(backend, model, tmp_path):
    videos = [write_video(tmp_path / f"{number}.mp4", frames=20 + 10 * number) for number in range(3)]
    right, _ = bare(load_model(model), videos, 3)
    facts = asyncio.run(backend.prepare(""))
    pids = replicas(os.getpid())
    with serving(backend, tmp_path, limits=LIMITS, facts=facts) as url:
        outcomes, _ = load(url, questions(videos, 60), 8)
        assert wrong(outcomes, right) == []
        assert replicas(os.getpid()) == pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        outcomes, _ = load(url, questions(videos, 4), 4)
    assert {outcome.status for outcome in outcomes} <= {200, 503}
    assert wrong([outcome for outcome in outcomes if outcome.status == 200], right) == []
