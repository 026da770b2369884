"""Parts of the server by themselves: access, versions, batches, decoding processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import numpy as np
import pytest

from pipelines.serving.access import choose_token
from pipelines.serving.application import waiting_text
from pipelines.serving.decoder import DecoderSettings, Pool
from pipelines.serving.limits import Limits, RefusedError
from pipelines.serving.listening import listen
from pipelines.serving.messages import Choice
from pipelines.serving.model import Model, ModelSettings
from pipelines.serving.search import SearchIndex
from pipelines.serving.server import decoders_by_default, require_installed
from pipelines.serving.versions import Versions
from tests.helpers.fake_cluster import FakeCluster, machine
from tests.helpers.serving import FACTS
from vlmodels import load
from vlmodels.errors import UserError
from vlmodels.span import Span


def test_a_token_is_made_where_the_server_is_open(monkeypatch, tmp_path):
    monkeypatch.delenv("VIDADAPT_TOKEN", raising=False)
    assert choose_token("127.0.0.1", None) == ("", False)
    token, made = choose_token("0.0.0.0", None)
    assert (len(token) >= 32, made) == (True, True)
    assert token != choose_token("0.0.0.0", None)[0]
    monkeypatch.setenv("VIDADAPT_TOKEN", "0123456789abcdef")
    assert choose_token("0.0.0.0", None) == ("0123456789abcdef", False)
    (tmp_path / "token").write_text("fedcba9876543210\n")
    assert choose_token("127.0.0.1", str(tmp_path / "token")) == ("fedcba9876543210", False)


@pytest.mark.parametrize("content", ["", "short", "0123456789 abcdef", "0123456789abcdeé"])
def test_tokens_that_are_none_are_refused(tmp_path, content):
    (tmp_path / "token").write_text(content)
    with pytest.raises(UserError):
        choose_token("0.0.0.0", str(tmp_path / "token"))


def test_a_taken_port_is_one_message():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match="another program listens"):
        listen("127.0.0.1", other.getsockname()[1])


def test_search_refuses_the_features_of_another_model():
    index = SearchIndex("x", "digest of another", lambda feature, topk: [])
    index.check(FACTS)  # its own is not known
    with pytest.raises(RefusedError, match="another version"):
        index.check(type(FACTS)("1", (), None, FACTS.views, "cpu", adapter="digest"))


def test_what_is_not_installed_is_named_with_the_remedy():
    require_installed()
    with pytest.raises(UserError, match=r"no_such_package is not installed; pip install -e '.\[serve\]'"):
        require_installed(["json", "no_such_package"])


def test_limits_must_be_above_zero():
    assert all(holds for holds, _ in Limits().rules())
    assert [message for holds, message in Limits(queue=0, max_seconds=float("inf")).rules() if not holds]


class Loader:
    """Loads versions; those below 1 cannot be."""

    def __init__(self, version):
        self.aliased, self.kept, self.lines, self.prepared = version, [], [], []

    async def prepare(self, version):
        if int(version) < 1:
            raise UserError(f"there is no version {version}")
        self.prepared.append(version)
        return type(FACTS)(version, (), None, FACTS.views, "cpu")

    async def keep(self, version):
        self.kept.append(version)

    def versions(self, source="models:/x@a"):
        return Versions(source, FACTS, self.prepare, self.keep, find=lambda _: self.aliased, say=self.lines.append)


def test_an_alias_that_moves_is_taken_over_and_the_last_request_of_the_old_is_waited_for():
    async def move():
        loader = Loader("2")
        versions = loader.versions()
        with versions.use() as facts:
            task = asyncio.create_task(versions.look())
            while versions.current.version != "2":  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            assert (facts.version, loader.kept) == ("1", [])
            with versions.use() as new:
                assert new.version == "2"
        await task
        return loader

    loader = asyncio.run(move())
    assert (loader.prepared, loader.kept) == (["2"], ["2"])
    assert "version 2 has taken over from version 1" in loader.lines[0]


def test_an_old_version_that_cannot_be_dropped_ends_nothing():
    async def move():
        loader = Loader("2")

        async def fails(_):
            raise ConnectionError("the replica is gone")

        loader.keep = fails
        versions = loader.versions()
        await versions.look()
        loader.aliased = "3"
        await versions.look()
        return loader, versions.current.version

    loader, current = asyncio.run(move())
    assert (current, loader.prepared) == ("3", ["2", "3"])
    assert any("stays loaded, the replica is gone" in line for line in loader.lines)


def test_a_version_that_cannot_be_loaded_is_told_once_and_the_old_goes_on():
    async def move():
        loader = Loader("0")
        versions = loader.versions()
        await versions.look()
        await versions.look()
        assert versions.current is FACTS
        loader.aliased = "3"
        await versions.look()
        return versions, loader

    versions, loader = asyncio.run(move())
    assert versions.current.version == "3"
    assert len(loader.lines) == 2
    assert loader.kept == ["3"]


def test_what_waits_together_is_scored_together(model):
    predictor = load(model)
    views = predictor.view_reader
    videos = np.random.default_rng(0).integers(0, 256, (6, 1, views.frames, views.size, views.size, 3), np.uint8)
    own = Choice(("one", "two"))

    async def ask():
        served = Model(ModelSettings(str(model)))
        await served.prepare("")
        choices = [Choice(), own, Choice(topk=1), Choice(), own]
        asked = [served.score("", choice, (videos[i],)) for i, choice in enumerate(choices)]
        bad = served.score("", Choice(("one", "one")), (videos[5],))
        return await asyncio.gather(*asked, bad)

    *found, refused = asyncio.run(ask())
    assert sorted(one.batch for one in found) == [0, 0, 0, 2, 3]
    assert "one" in refused.problem
    for i, labels in enumerate([None, own.labels, None, None, own.labels]):
        predictor.set_labels(labels)
        expected = predictor.answer(predictor.score([videos[i]]).probabilities[0], 1 if i == 2 else 5)
        got = dict(found[i].verdicts[0].topk)
        assert got == pytest.approx({one.label: one.probability for one in expected.predictions}, abs=1e-5)


def test_a_decoder_that_dies_costs_nobody_else_anything(model, video, tmp_path):
    predictor = load(model)
    pool = Pool(DecoderSettings(1, 60, 1 << 20, 100, 60))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")

    async def read(path, spans=(None,)):
        return await pool.read(str(path), predictor.view_reader, list(spans))

    async def ask():
        first = await read(video)
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGKILL)
        return first, await read(broken), await read(video), await read(video, (Span(1, 2), Span(90, 91)))

    try:
        first, bad, again, (part, beyond) = asyncio.run(ask())
    finally:
        pool.close()
    expected = predictor.read_views(video)
    assert np.array_equal(first[0].frames, expected)
    assert bad[0].frames is None
    assert bad[0].error
    assert again[0].frames is None or np.array_equal(again[0].frames, expected)
    assert np.array_equal(part.frames, predictor.read_views(video, Span(1, 2)))
    assert "90" in beyond.error


@pytest.mark.parametrize(("cpus", "decoders"), [([0, 1], 1), ([0, 8, 2], 4), ([0], 1), ([], 1)])
def test_decoders_by_default_fit_on_a_machine_of_the_cluster(monkeypatch, cpus, decoders):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert decoders_by_default(FakeCluster([machine(CPU=count) for count in cpus])) == decoders


def test_a_start_that_waits_for_room_names_what_is_asked_for():
    assert "2 CPUs of one machine, the model 1 CPU;" in waiting_text(2, 0)
    assert "1 CPU of one machine, the model 1 CPU and 1 GPU;" in waiting_text(1, 1)
