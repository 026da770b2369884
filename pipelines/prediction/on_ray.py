"""Score videos on Ray Data: tasks that decode batches, and actors with the model that score them.

Frames pass between them through Ray's object store, a batch of some megabytes at a time; where the model is slower,
a full store holds the decoders back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

from pipelines.prediction.scoring import Scored
from pipelines.prediction.work import Say, Work
from vlmodels.errors import UserError

BATCH_BYTES = 48 << 20
"""Bytes of the frames of a batch."""
_LEVEL = "RAY_BACKEND_LOG_LEVEL"
LARGEST_BATCH = 32
BATCHES_OF_CPU = 4
"""Batches of each CPU, at least, so that all end at about the same time."""


def run_on_ray(work: Work, say: Say) -> Iterator[list[Scored]]:
    """Score videos on Ray Data: tasks decode batches, actors with the model score them.

    Raises:
        UserError: there is no CPU or GPU, or a machine does not have the videos or the model.
    """
    import ray
    from ray.exceptions import RayError

    from pipelines.cluster.capacity import place_model
    from pipelines.cluster.session import connect_for_data
    from pipelines.prediction.stages import ModelStage, SharedFiles, SharedPlan, decode_on_ray, plan_table, scored_of

    with _quiet_core():
        connect_for_data()
    check_machines(work)
    room = ray.cluster_resources()
    cpus, nodes = max(1, int(room.get("CPU", 0))), sum(node["Alive"] for node in ray.nodes())
    device, actors = place_model(work.request.device, int(room.get("GPU", 0)), nodes)
    size = batch_size(len(work.pending), work.decode.reader.most_bytes, cpus=cpus)
    batches = -(-len(work.pending) // size)
    workers = min(work.request.workers or cpus, cpus, batches)
    models = f"{actors} on GPUs" if device == "cuda" else f"{actors} on {nodes} machines" if nodes > 1 else "one"
    say(f"predicting {len(work.pending)} videos in {batches} batches: {workers} decoders; models: {models}")
    plan = SharedPlan(ray.put(plan_table(work.listing, work.pending)), size)
    looks = ray.data.range(batches, override_num_blocks=batches).map_batches(
        decode_on_ray,
        fn_args=(plan, work.decode),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(size=workers),
    )
    scores = looks.map_batches(
        ModelStage,
        fn_constructor_args=(SharedFiles(ray.put(work.files)), work.score, device),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(actors, batches)),
        num_cpus=0,
        num_gpus=1 if device == "cuda" else 0,
    )
    try:
        for table in scores.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield scored_of(table)
    except RayError as error:
        raise UserError(
            f"Ray could not go on ({' '.join(str(error).split())[:400]}); what is done is kept, and the same command "
            "continues"
        ) from error


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Let the Ray that is started in the block print fatal errors alone: docs/RAY.md#an-error-that-is-none."""
    if os.environ.get("VIDADAPT_DEBUG") or _LEVEL in os.environ:
        yield
        return
    os.environ[_LEVEL] = "fatal"
    try:
        with _without_line(b"Set ray log level"):
            yield
    finally:
        os.environ.pop(_LEVEL, None)  # other programs that this process starts have levels of their own


@contextmanager
def _without_line(words: bytes) -> Iterator[None]:
    """Hold back what is printed on stderr during the block, and print it after it but for lines with these words."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            for line in caught:
                if words not in line:
                    os.write(2, line)


def batch_size(videos: int, most_bytes: int, *, cpus: int) -> int:
    """Return how many of some videos, whose frames are ``most_bytes`` at most, are decoded and scored together."""
    by_bytes = BATCH_BYTES // max(1, most_bytes // 2)  # most videos are half as wide as the widest
    return max(1, min(by_bytes, videos // (BATCHES_OF_CPU * cpus), LARGEST_BATCH))


def check_machines(work: Work) -> None:
    """Check that every machine sees the first local video and the weight file.

    Raises:
        UserError: naming the machines that do not.
    """
    from pipelines.cluster.ask_nodes import blind_nodes
    from pipelines.storage.place import is_uri

    videos = (work.listing[index].video for index in work.pending)
    local = next((video for video in videos if not is_uri(video)), None)
    files = [] if local is None else [str(work.listing.path(local))]
    if work.files.weights and not is_uri(work.files.weights):
        files.append(work.files.weights)
    for path, blind in zip(files, blind_nodes(files), strict=True):
        if blind:
            raise UserError(
                f"{path} is not there, or another file, on {', '.join(blind)}; on several machines videos and weights "
                "must be in a shared folder or a store (s3://...)"
            )
