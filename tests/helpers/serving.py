"""A server in this process: the real decoder and model without Ray, and real HTTP on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pipelines.ingestion.isolation import Decoded
from pipelines.serving.access import Access
from pipelines.serving.app import Front, create_app
from pipelines.serving.decoder import Decoder, DecoderSettings
from pipelines.serving.frames import ReadSettings, read_parts, read_whole
from pipelines.serving.http_server import server_of
from pipelines.serving.limits import Limits
from pipelines.serving.listening import listen, url_of
from pipelines.serving.messages import ModelFacts
from pipelines.serving.model import Model, ModelSettings
from pipelines.serving.stored import AllowedUris
from pipelines.serving.versions import Versions
from vlmodels.checkpoint import save_adapter
from vlmodels.clip import create
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.span import Cuts
from vlmodels.video import VideoError
from vlmodels.view_reader import ViewReader

CLASSES = ("red car", "sailing boat", "running dog")
DEFAULTS = Limits()
FACTS = ModelFacts("1", CLASSES, None, ViewReader(4, 48, 1, "segments", 16), "cpu")


def save_model(folder: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write a toy model."""
    save_adapter(folder, ZeroShot(create("toy", weights="toy", num_frames=4), ZeroShot.Config()), classes=classes)
    return folder


class Handle:
    """What Serve gives for a deployment: here its object is called itself."""

    def __init__(self, served) -> None:
        self._served = served

    def __getattr__(self, name):
        return SimpleNamespace(remote=getattr(self._served, name))


class PoolHere:
    """Decodes in this process."""

    def __init__(self, max_seconds: float, max_pixels: int) -> None:
        self._limits = (max_seconds, max_pixels)

    async def read(self, path, views, spans):
        return await asyncio.to_thread(self._read, path, ReadSettings(views, *self._limits), spans)

    def _read(self, path, settings, spans):
        try:
            found = [read_whole(path, settings)] if spans == [None] else read_parts(path, settings, Cuts(tuple(spans)))
        except VideoError as error:
            return [Decoded(None, None, error.cause)] * len(spans)
        return [Decoded(None, None, one.cause) if isinstance(one, VideoError) else Decoded(*one) for one in found]


class BackendHere:
    """Answers with a model of this process; each request waits for ``held``, if there is one."""

    def __init__(self, source: Path, limits: Limits) -> None:
        self.model = Model(ModelSettings(str(source)))
        settings = DecoderSettings(1, limits.max_seconds, limits.max_pixels, limits.max_windows, limits.decode_s)
        pool = PoolHere(limits.max_seconds, limits.max_pixels)
        self.decoder = Decoder(Handle(self.model), settings, pool)
        self.prepare, self.keep, self.embed_texts = self.model.prepare, self.model.keep, self.model.embed_texts
        self.held: threading.Event | None = None

    async def predict(self, ask):
        if self.held is not None:
            await asyncio.to_thread(self.held.wait, 60)
        return await self.decoder.predict(ask)


class EchoBackend:
    """Answers without a model; the features of all texts are one."""

    async def prepare(self, version):
        return FACTS

    async def keep(self, version):
        pass

    async def embed_texts(self, version, texts):
        return np.eye(len(texts), 8, dtype=np.float32)


@contextlib.contextmanager
def serving(
    backend,
    folder: Path,
    *,
    limits=DEFAULTS,
    token="",
    uris=(),
    search=None,
    facts=FACTS,
    versions=None,
) -> Iterator[str]:
    """Serve for the time of the block; yield the address."""
    listening = listen("127.0.0.1", 0)
    front = Front(
        backend,
        versions or Versions("toy", facts, backend.prepare, backend.keep),
        Access(token, loopback=True),
        limits,
        AllowedUris.of(uris),
        folder,
        search,
        0.05,
    )
    server = server_of(create_app(front), limits.patience_s)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield url_of(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
