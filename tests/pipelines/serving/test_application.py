"""The Serve application on Ray: a slice of ``benchmarks/serve.py``, a replica that is lost, an alias that moves."""

from __future__ import annotations

import asyncio
import os

import pytest

from benchmarks.serve import bare, load, questions, replicas, wrong
from pipelines.serving.application import Deployed, ServeBackend, deploy, prepare_environment, remove
from pipelines.serving.limits import Limits, RefusedError
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
def test_sixty_requests_of_which_six_are_hostile(backend, model, tmp_path):
    videos = [write_video(tmp_path / f"{number}.mp4", frames=20 + 10 * number) for number in range(3)]
    right, _ = bare(load_model(model), videos, 3)
    facts = asyncio.run(backend.prepare(""))
    pids = replicas(os.getpid())
    with serving(backend, tmp_path, limits=LIMITS, facts=facts) as url:
        outcomes, _ = load(url, questions(videos, 60), 8)
        assert wrong(outcomes, right) == []
        assert replicas(os.getpid()) == pids


class Lost:
    """A deployment whose first calls end with the loss of a worker."""

    def __init__(self, times: int) -> None:
        self.predict, self._times = self, times

    async def remote(self, ask):
        from ray.exceptions import RayActorError

        self._times -= 1
        if self._times >= 0:
            raise RayActorError
        return "the answer"


def test_a_request_whose_worker_was_lost_is_asked_once_more():
    assert asyncio.run(ServeBackend(Lost(1), None, far=False).predict(None)) == "the answer"
    with pytest.raises(RefusedError) as refused:
        asyncio.run(ServeBackend(Lost(2), None, far=False).predict(None))
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
