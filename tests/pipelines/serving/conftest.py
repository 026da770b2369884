"""A toy model, and a server of it in this process."""

from __future__ import annotations

import asyncio

import pytest

from pipelines.serving.limits import Limits
from tests.helpers.serving import BackendHere, save_model, serving
from tests.helpers.videofiles import write_video

LIMITS = Limits(max_bytes=400_000, max_seconds=20, max_pixels=100_000, max_labels=5, max_windows=12, patience_s=2)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Four seconds."""
    return write_video(tmp_path_factory.mktemp("video") / "a clip.mp4", frames=100)


@pytest.fixture(scope="session")
def backend(model):
    return BackendHere(model, LIMITS)


@pytest.fixture(scope="session")
def facts(backend):
    return asyncio.run(backend.prepare(""))


@pytest.fixture(scope="session")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="session")
def url(backend, facts, uploads):
    with serving(backend, uploads, limits=LIMITS, facts=facts) as address:
        yield address
