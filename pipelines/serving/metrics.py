"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pipelines.serving.gate import Gate
from pipelines.serving.messages import Reply

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16)


class Metrics:
    """Counters of one server."""

    def __init__(self, gate: Gate) -> None:
        self._registry = CollectorRegistry()
        inside = self._gauge("queue_length", "Requests that are worked on or wait for it")
        inside.set_function(lambda: gate.inside)
        self._gauge("queue_limit", "Most of them").set(gate.places)
        self._gauge("uploads", "Uploads under way").set_function(lambda: gate.uploads)
        self._requests = Counter("vidadapt_requests", "Requests answered", ("path", "status"), registry=self._registry)
        self._seconds = self._histogram("request_seconds", "Time to the answer, upload included", _SECONDS, ("path",))
        self._decode = self._histogram("decode_seconds", "Time to read a video", _SECONDS)
        self._model = self._histogram("model_seconds", "Time of a batch in the model", _SECONDS)
        self._batches = self._histogram("batch_size", "Requests that were scored together", _SIZES)
        self._bytes = Counter("vidadapt_upload_bytes", "Bytes of videos received", registry=self._registry)
        self._version = Gauge(
            "vidadapt_model_version", "1 for the version that answers", ("model", "version"), registry=self._registry
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def reply(self, reply: Reply) -> None:
        """Count a video."""
        if reply.verdict is not None:
            self._decode.observe(reply.decode_s)
            self._model.observe(reply.model_s)
        for size in reply.batches:
            self._batches.observe(size)

    def received(self, size: int) -> None:
        """Count bytes of videos."""
        self._bytes.inc(size)

    def text(self, model: str, version: str) -> bytes:
        """Return all of it in Prometheus' format."""
        self._version.clear()
        self._version.labels(model, version).set(1)
        return generate_latest(self._registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"vidadapt_{name}", help_text, registry=self._registry)

    def _histogram(
        self, name: str, help_text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(f"vidadapt_{name}", help_text, labels, buckets=buckets, registry=self._registry)
