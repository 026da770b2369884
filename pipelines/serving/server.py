"""From a request on the command line to a running server, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.cluster.capacity import place_model
from pipelines.cluster.session import connect
from pipelines.cluster.view import CONNECTED, ClusterView
from pipelines.serving.access import Access, choose_token, is_loopback
from pipelines.serving.application import Deployed, ServeBackend, deploy, prepare_environment, remove
from pipelines.serving.limits import Limits, RefusedError, size_text
from pipelines.serving.listening import listen, url_of
from pipelines.serving.messages import ModelFacts
from pipelines.serving.model import ModelSettings
from pipelines.serving.search import SearchIndex
from pipelines.serving.stored import AllowedUris
from pipelines.serving.versions import POLL_S, Versions, current_version
from pipelines.storage.place import is_uri
from vlmodels.errors import UserError, refuse
from vlmodels.model_folder import model_folder
from vlmodels.paths import absolute

_NEEDED = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")
"""Modules of the extra that are imported here."""
_MOST_DECODERS = 4


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """What ``serve.py`` is asked for.

    Attributes:
        model: ``models:/NAME@ALIAS``, ``models:/NAME/3``, or a run's folder.
        registry: tracking URI of MLflow.
        weights: weight file of the backbone, or None.
        device: that computes; "auto" for a GPU, if Ray has one.
        host: to listen on.
        port: to listen on; 0 for any.
        token_file: that holds the token, or None.
        allow_uris: prefixes of the URIs that requests may name.
        embeddings: folder that is searched, or None.
        decoders: processes that decode, on one machine; 0 for one on each of its CPUs, at most four.
        limits: of requests.
        poll_s: seconds between two looks at the registry.
    """

    model: str
    registry: str = ""
    weights: str | None = None
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: str | None = None
    allow_uris: Sequence[str] = ()
    embeddings: str | None = None
    decoders: int = 0
    limits: Limits = field(default_factory=Limits)
    poll_s: float = POLL_S


@dataclass(frozen=True, slots=True)
class _Checked:
    """What was opened before Ray starts, so that mistakes show at once."""

    listening: socket.socket
    version: str
    access: Access
    uris: AllowedUris
    search: SearchIndex | None


def run_server(request: ServerRequest) -> None:
    """Serve until a signal comes.

    Raises:
        UserError: serve's packages are not installed, the port is taken, or the model does not load.
    """
    require_installed()
    refuse([message for holds, message in request.limits.rules() if not holds])
    checked = _check(request)
    port = checked.listening.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="vidadapt-serve-") as folder, _application(request, port) as backend:
        facts = _first_facts(backend, checked)
        versions = Versions(request.model, facts, backend.prepare, backend.keep, say=_say)
        from pipelines.serving.app import Front, create_app  # packages of the extra: late
        from pipelines.serving.http_server import serve_http

        front = Front(
            backend=backend,
            versions=versions,
            access=checked.access,
            limits=request.limits,
            uris=checked.uris,
            folder=Path(folder),
            search=checked.search,
            poll_s=request.poll_s,
        )
        app = create_app(front)
        _say(start_text(request, facts, url_of(checked.listening)))
        serve_http(app, checked.listening, request.limits.patience_s)


def require_installed(names: Sequence[str] = _NEEDED) -> None:
    """Check that the packages of the extra ``serve`` are there.

    Raises:
        UserError: one is not.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} is not installed; pip install -e '.[serve]' in this package's folder")


def start_text(request: ServerRequest, facts: ModelFacts, url: str) -> str:
    """Return what is said when requests are taken."""
    limits = request.limits
    version = f" version {facts.version}" if facts.version else ""
    classes = f"{len(facts.classes)} classes" if facts.classes else "no classes of its own: requests name labels"
    return "\n".join(
        [
            f"ready: {url}",
            f"  model    {request.model}{version}, {classes}, on {facts.device}",
            f"  limits   {size_text(limits.max_bytes)} a request, {limits.max_seconds:g} s and "
            f"{limits.max_pixels / 1e6:.1f} million pixels a video, {limits.queue} requests at a time",
            "  pages    / to drop a video, /docs, /metrics, /ready",
            "Ctrl-C ends it when what is under way is answered",
        ]
    )


def _check(request: ServerRequest) -> _Checked:
    token, made = choose_token(request.host, request.token_file)
    uris = AllowedUris.of(request.allow_uris)
    listening = listen(request.host, request.port)
    if request.registry:
        os.environ["MLFLOW_TRACKING_URI"] = request.registry
    if not is_uri(request.model):
        model_folder(request.model)
    version = current_version(request.model)
    search = None if request.embeddings is None else SearchIndex.open(request.embeddings)
    if search is not None and search.warning:
        _say(f"warning: {search.warning}")
    if made:
        _say(f"token: {token}\n  send it as Authorization: Bearer TOKEN; the page asks for it")
    return _Checked(listening, version, Access(token, is_loopback(request.host)), uris, search)


@contextlib.contextmanager
def _application(request: ServerRequest, port: int) -> Iterator[ServeBackend]:
    """Run the Serve application for the time of the block, on the cluster of RAY_ADDRESS or a local Ray.

    On a cluster its name holds machine and port: other servers go on, one that was killed there is replaced.
    """
    prepare_environment()
    connect()
    model = request.model if is_uri(request.model) or request.model.startswith("models:") else absolute(request.model)
    device = _device(request.device)
    threads = 0 if os.environ.get("RAY_ADDRESS") else _cpus()
    settings = ModelSettings(str(model), request.weights, device, request.registry, threads)
    name = f"vidadapt-{socket.gethostname()}-{port}"
    try:
        yield deploy(Deployed(settings, request.limits, request.decoders or decoders_by_default(), name), _say)
    finally:
        import ray

        if os.environ.get("RAY_ADDRESS"):
            remove(name)
        ray.shutdown()


def _device(wanted: str) -> str:
    """Return the device that is meant, as predict.py on Ray does."""
    import ray

    if wanted != "auto" and not wanted.startswith("cuda"):
        return wanted
    return place_model(wanted, int(ray.cluster_resources().get("GPU", 0)), 1)[0]


def _first_facts(backend: ServeBackend, checked: _Checked) -> ModelFacts:
    try:
        facts = asyncio.run(backend.prepare(checked.version))
        if checked.search is not None:
            checked.search.check(facts)
    except RefusedError as error:
        raise UserError(error.message) from error
    return facts


def decoders_by_default(cluster: ClusterView = CONNECTED) -> int:
    """Return one for each CPU of a machine, at most four: of this one, or of the largest that a cluster has."""
    if not os.environ.get("RAY_ADDRESS"):
        return min(_MOST_DECODERS, _cpus())
    most = max((node["Resources"].get("CPU", 0) for node in cluster.nodes()), default=0)
    return max(1, min(_MOST_DECODERS, int(most)))


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _say(text: str) -> None:
    print(text, flush=True)
