"""The Ray Serve application: a deployment of decoders, one of the model, and what the front asks them for.

Serve's own HTTP proxy is not used (docs/SECURITY.md#the-server): it reads a body as fast as it comes into a queue
without a limit (``ray.serve._private.proxy.HTTPProxy.proxy_asgi_receive``, Ray 2.60), and waits for slow senders.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.config.text import plural
from pipelines.serving.limits import Limits, RefusedError
from pipelines.serving.messages import Ask, ModelFacts, Reply
from pipelines.serving.model import ModelSettings
from vlmodels.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SLOW_S = 30.0
"""Seconds after which a start is explained."""
_ATTEMPTS = 2
"""A request whose worker was lost is asked once more: it changes nothing, so it may be."""


class Backend(Protocol):
    """What answers: the Serve application, or a stand-in of tests."""

    async def predict(self, ask: Ask) -> Reply:
        """Answer about a video."""
        ...

    async def prepare(self, version: str) -> ModelFacts:
        """Load a version, and return its facts."""
        ...

    async def keep(self, version: str) -> None:
        """Drop all versions but this one."""
        ...

    async def embed_texts(self, version: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the normalised features (M,E) of texts."""
        ...


@dataclass(frozen=True, slots=True)
class Deployed:
    """How the application runs.

    Attributes:
        model: that is served.
        limits: of requests.
        decoders: processes that decode at a time.
        name: of the application.
    """

    model: ModelSettings
    limits: Limits
    decoders: int
    name: str


class ServeBackend:
    """Asks the deployments of a running Serve application."""

    def __init__(self, decoder: Any, model: Any, *, far: bool) -> None:
        self._decoder, self._model, self._far = decoder, model, far

    async def predict(self, ask: Ask) -> Reply:
        """Answer about a video.

        Raises:
            RefusedError: 503; the worker was lost twice.
        """
        if self._far:
            ask = replace(ask, content=await asyncio.to_thread(Path(ask.path).read_bytes))
        return await _asked(lambda: self._decoder.predict.remote(ask))

    async def prepare(self, version: str) -> ModelFacts:
        """Load a version, and return its facts.

        Raises:
            UserError: it cannot be loaded.
        """
        from ray.exceptions import RayTaskError

        try:
            facts: ModelFacts = await self._model.prepare.remote(version)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):  # as it was raised, without Ray's account of where
                raise UserError(str(error.cause)) from error
            raise
        await self._decoder.warm.remote(facts.views)
        return facts

    async def keep(self, version: str) -> None:
        """Drop all versions but this one."""
        await self._model.keep.remote(version)

    async def embed_texts(self, version: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the normalised features (M,E) of texts.

        Raises:
            RefusedError: 503; the worker was lost twice.
        """
        return await _asked(lambda: self._model.embed_texts.remote(version, texts))


def prepare_environment() -> None:
    """Set what Serve reads when it is imported, here and in the processes of a local Ray: call it before that."""
    # No thread between a replica's loop and our code, which does not block it. RAY_SERVE_THROUGHPUT_OPTIMIZED sets this
    # too, but opens ports for gRPC.
    os.environ.setdefault("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")
    if not os.environ.get("VIDADAPT_DEBUG"):
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")


def deploy(deployed: Deployed, say: Callable[[str], None] = print) -> ServeBackend:
    """Start the application on the Ray that this process is connected to, and wait until it is ready.

    What it waits for on a cluster without room is said once: Serve logs it where nobody looks.

    Raises:
        UserError: it does not start.
    """
    import ray
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from pipelines.serving.decoder import Decoder, DecoderSettings
    from pipelines.serving.model import Model

    logging.getLogger("ray.serve").setLevel(logging.INFO if os.environ.get("VIDADAPT_DEBUG") else logging.ERROR)
    limits, alone = deployed.limits, not os.environ.get("RAY_ADDRESS")
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    at_once = {"max_ongoing_requests": 4 * limits.queue, "graceful_shutdown_timeout_s": 30}
    # A Ray of our own has nothing else to place; a cluster is told what is used.
    cpus = (0.01, 0.01) if alone else (deployed.decoders, 1)
    gpus = 1 if deployed.model.device.startswith("cuda") else 0
    settings = DecoderSettings(
        deployed.decoders, limits.max_seconds, limits.max_pixels, limits.max_windows, limits.decode_s
    )
    model = serve.deployment(Model, name="model").options(
        ray_actor_options={"num_cpus": cpus[1], "num_gpus": gpus}, **at_once
    )
    decoder = serve.deployment(Decoder, name="decoder").options(ray_actor_options={"num_cpus": cpus[0]}, **at_once)
    serve.start(proxy_location="Disabled", logging_config=quiet)
    try:
        with contextlib.nullcontext() if alone else _said_after(_SLOW_S, say, waiting_text(deployed.decoders, gpus)):
            handle = serve.run(
                decoder.bind(model.bind(deployed.model), settings),
                name=deployed.name,
                route_prefix=None,
                logging_config=quiet,
            )
    except RuntimeError as error:
        raise UserError(f"the application does not start: {' '.join(str(error).split())[:500]}") from error
    return ServeBackend(handle, serve.get_deployment_handle("model", deployed.name), far=len(ray.nodes()) > 1)


def waiting_text(decoders: int, gpus: int) -> str:
    """Return what an application that does not start may wait for."""
    model = "1 CPU and 1 GPU" if gpus else "1 CPU"
    return (
        f"waiting for the application to start: the decoders take {plural(decoders, 'CPU')} of one machine, "
        f"the model {model}; 'ray status' shows what is free, --decoders N asks for other numbers"
    )


@contextlib.contextmanager
def _said_after(seconds: float, say: Callable[[str], None], text: str) -> Iterator[None]:
    """Say something unless the block ends before."""
    timer = threading.Timer(seconds, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def remove(name: str) -> None:
    """End the application; a Serve with other applications goes on."""
    from ray import serve

    serve.delete(name)
    if not serve.status().applications:
        serve.shutdown()


async def _asked(ask: Any) -> Any:
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import RayServeException

    for attempt in range(_ATTEMPTS):
        try:
            return await ask()
        except (RayActorError, RayServeException):
            if attempt + 1 == _ATTEMPTS:
                break
    raise RefusedError(
        503, "worker_lost", "the process that worked on it ended, twice; try again", headers={"Retry-After": "5"}
    )
