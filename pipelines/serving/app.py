"""The HTTP interface: routes, errors as JSON, and who may ask."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.serving import answers, openapi
from pipelines.serving.access import Access
from pipelines.serving.application import Backend
from pipelines.serving.envelope import INTERNAL, Envelope
from pipelines.serving.gate import Gate
from pipelines.serving.limits import Limits, RefusedError
from pipelines.serving.messages import Ask, ModelFacts, Reply
from pipelines.serving.metrics import CONTENT_TYPE, Metrics
from pipelines.serving.options import Options, SearchOptions, checked, read_options
from pipelines.serving.search import SearchIndex
from pipelines.serving.stored import AllowedUris
from pipelines.serving.uploads import Received, Video, read_json, receive
from pipelines.serving.versions import POLL_S, Versions

PAGE = Path(__file__).parent / "page"
_READY_S = 5.0
"""Seconds that the workers have to answer a probe."""
SEARCH = "/v1/search"
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
}


@dataclass(frozen=True, slots=True)
class Front:
    """What the interface needs.

    Attributes:
        backend: answers.
        versions: of the model.
        access: who may ask.
        limits: of requests.
        uris: that requests may name.
        folder: for uploads, one of its own for each request.
        search: the embeddings that are searched, or None.
        poll_s: seconds between two looks at the registry.
    """

    backend: Backend
    versions: Versions
    access: Access
    limits: Limits
    uris: AllowedUris
    folder: Path
    search: SearchIndex | None = None
    poll_s: float = POLL_S


def create_app(front: Front) -> Any:
    """Return the ASGI application."""
    gate = Gate(front.limits.queue)
    metrics = Metrics(gate)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(front.versions.watch(front.poll_s))
        yield
        watch.cancel()

    app = FastAPI(
        title="vidadapt", docs_url=None, redoc_url=None, lifespan=lifespan, description=openapi.DESCRIPTION, version="1"
    )
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(ClientDisconnect)(_gone)
    app.exception_handler(HTTPException)(_not_found)
    app.exception_handler(Exception)(_internal)
    _add_page(app)
    _add_state(app, front, metrics)
    _add_predict(app, front, gate, metrics)
    if front.search is not None:
        _add_search(app, front, front.search, gate)
    return Envelope(app, front.access, metrics, {route.path for route in app.routes if hasattr(route, "path")})


def _add_page(app: FastAPI) -> None:
    for path, (name, kind) in _FILES.items():
        app.add_api_route(path, _file(PAGE / name, kind), methods=["GET"], include_in_schema=False)


def _file(path: Path, kind: str) -> Callable[[], Awaitable[Response]]:
    content = path.read_bytes()

    async def send() -> Response:
        return Response(content, media_type=kind)

    return send


def _add_state(app: FastAPI, front: Front, metrics: Metrics) -> None:
    @app.get("/health", summary="Whether the server runs")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether it takes requests")
    async def ready() -> dict[str, str]:
        version = front.versions.current.version
        try:
            await asyncio.wait_for(front.backend.prepare(version), _READY_S)  # it is loaded: this asks the workers
        except Exception as error:
            raise RefusedError(503, "not_ready", "the model does not answer", headers={"Retry-After": "5"}) from error
        return {"status": "ready", "version": version}

    @app.get("/metrics", summary="Counters, in the format of Prometheus", response_class=Response)
    async def counters() -> Response:
        return Response(
            metrics.text(front.versions.source, front.versions.current.version), headers={"content-type": CONTENT_TYPE}
        )

    @app.get("/v1/model", summary="The model, its classes, and the limits of requests")
    async def model() -> dict[str, Any]:
        facts = front.versions.current
        return {
            "model": _identity(front, facts),
            "classes": facts.classes,
            "threshold": facts.threshold,
            "device": facts.device,
            "limits": dataclasses.asdict(front.limits),
            "search": front.search is not None,
        }


def _add_predict(app: FastAPI, front: Front, gate: Gate, metrics: Metrics) -> None:
    @app.post("/v1/predict", summary="Name the action in videos", openapi_extra=openapi.PREDICT)
    async def predict(request: Request) -> Response:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=front.folder) as folder:
            with gate.upload(), _room_told():
                received = await receive(request, Path(folder), front.limits)
                options = read_options(received.fields, front.limits)
                if not received.videos:
                    raise RefusedError(422, "no_video", "the request has no video: send one as a file, uri or base64")
                await asyncio.to_thread(_fetch, received, front)
            metrics.received(received.size)
            with gate.work(), front.versions.use() as facts:
                replies = await _all(front.backend.predict(_ask(video, options, facts)) for video in received.videos)
        for reply in replies:
            metrics.reply(reply)
        gate.took(time.perf_counter() - began)
        return _answer(received.videos, options, replies, {"model": _identity(front, facts)}, front.limits)


def _add_search(app: FastAPI, front: Front, index: SearchIndex, gate: Gate) -> None:
    @app.post(SEARCH, summary="Find videos by a text", openapi_extra=openapi.SEARCH)
    async def search(request: Request) -> dict[str, Any]:
        with gate.upload():
            options = checked(SearchOptions, await read_json(request, front.limits))
        with gate.work(), front.versions.use() as facts:
            index.check(facts)
            feature = (await front.backend.embed_texts(facts.version, (options.text,)))[0]
            results = await asyncio.to_thread(index.find, feature, options.topk)
        return {"model": _identity(front, facts), "results": results}


@contextmanager
def _room_told() -> Iterator[None]:
    """Tell a full disk as what it is: others may be served."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RefusedError(
            503, "no_room", "the server has no room for the videos", headers={"Retry-After": "30"}
        ) from error


def _fetch(received: Received, front: Front) -> None:
    for video in received.videos:
        if video.uri:
            received.size += front.uris.fetch(video.uri, video.path, front.limits.max_bytes - received.size)


async def _all(answers: Iterable[Coroutine[Any, Any, Reply]]) -> list[Reply]:
    """Wait for all answers; if one fails, or the sender goes, end the others: their files are about to be removed."""
    tasks = [asyncio.create_task(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ask(video: Video, options: Options, facts: ModelFacts) -> Ask:
    return Ask(
        path=str(video.path),
        content=None,
        start=options.start,
        end=options.end,
        pictures=options.pictures,
        timeline=options.timeline,
        choice=options.choice,
        model=facts,
    )


def _answer(
    videos: list[Video], options: Options, replies: list[Reply], head: dict[str, Any], limits: Limits
) -> Response:
    """Return the rows; if no video has an answer, the first reason makes the error."""
    rows = [
        answers.row(video.name, options.start, options.end, reply, options.timeline)
        for video, reply in zip(videos, replies, strict=True)
    ]
    if any(reply.verdict is not None for reply in replies):
        return JSONResponse({**head, "results": rows})
    first = replies[0]
    code = "over_limit" if first.limit else "cannot_answer"
    value = getattr(limits, first.limit) if first.limit else 0
    refusal = RefusedError(422, code, f"{videos[0].name}: {first.reason}", limit=first.limit, value=value)
    return JSONResponse({**head, **refusal.to_json(), "results": rows}, 422)


def _identity(front: Front, facts: ModelFacts) -> dict[str, str]:
    return {"name": front.versions.source, "version": facts.version}


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse(error.to_json(), error.status, error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": {"code": "gone", "message": "the sender has gone"}}, 400)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    remedy = "start the server with --embeddings DIR" if (path, error.status_code) == (SEARCH, 404) else "see /docs"
    message = f"{request.method} {path[:200]}: {error.detail}; {remedy}"
    return JSONResponse({"error": {"code": "no_such_route", "message": message}}, error.status_code, error.headers)


async def _internal(_: Request, __: Exception) -> Response:
    return JSONResponse(INTERNAL, 500)  # the envelope tells the operator
