"""Decodes batches of videos to find those that do not decode; nothing is stored."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipelines.cluster.view import CONNECTED, ClusterView
from pipelines.ingestion.batch import GONE, Batch, copy_problem
from pipelines.ingestion.decode import DecodeRequest
from pipelines.ingestion.destination import unwritable_cache
from pipelines.ingestion.isolation import Decoded, worker_decoder
from vlmodels.errors import UserError
from vlmodels.span import Cuts

COLUMNS = pa.schema([("path", pa.string()), ("error", pa.string())])


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A video, by its path below the root with its span behind it, and why it cannot be used: "" if it can.

    Without a path, it stands for a batch that could not be checked.
    """

    path: str
    error: str


class Decode(Protocol):
    """A decoder; tests make up their results."""

    def __call__(self, paths: Sequence[str], cuts: Sequence[Cuts | None]) -> Iterable[Decoded]:
        """Return the result for each path and each of its cuts, in order."""


class RunChecks(Protocol):
    """How batches are checked; tests do so in their own process."""

    def __call__(self, batches: Sequence[Batch], request: DecodeRequest) -> Iterator[list[CheckResult]]:
        """Decode the batches; yield the results of each."""


def check_on_ray(
    batches: Sequence[Batch], request: DecodeRequest, *, cluster: ClusterView = CONNECTED
) -> Iterator[list[CheckResult]]:
    """Decode batches on Ray; yield the results of each.

    Raises:
        UserError: a batch could not be checked.
    """
    import ray

    from pipelines.cluster.session import connect_for_data

    connect_for_data()
    cpus = max(1, int(cluster.total().get("CPU", 1)))
    tables = ray.data.from_items([batch.to_row() for batch in batches], override_num_blocks=len(batches)).map_batches(
        check_row,
        fn_args=(request,),
        batch_size=1,
        batch_format="pyarrow",
        concurrency=min(request.workers or cpus, cpus, len(batches)),
        num_cpus=1,
    )
    for table in tables.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield read_results(table)


def check_row(rows: pa.Table, request: DecodeRequest) -> pa.Table:
    """Check the batch in a table of one row (``Batch.to_row``); ``read_results`` reads the answer."""
    (row,) = rows.to_pylist()
    results = _results(Batch.from_row(row), request)
    return pa.Table.from_pylist([asdict(result) for result in results], schema=COLUMNS)


def read_results(table: pa.Table) -> list[CheckResult]:
    """Return the results in a table of ``check_row``.

    Raises:
        UserError: the batch could not be checked.
    """
    results = [CheckResult(**row) for row in table.to_pylist()]
    for result in results:
        if not result.path:
            raise UserError(result.error)
    return results


def _results(batch: Batch, request: DecodeRequest) -> list[CheckResult]:
    try:
        return list(check_batch(batch, worker_decoder(request)))
    except UserError as error:
        where = f" (on {socket.gethostname()})" if batch.is_stored else ""
        return [CheckResult("", f"{error}{where}")]
    except OSError as error:
        if not batch.is_stored:
            raise
        return [CheckResult("", unwritable_cache(error))]


def check_batch(batch: Batch, decoder: Decode) -> Iterator[CheckResult]:
    """Decode the videos of a batch, and remove each copy of a stored one as soon as it is decoded.

    Raises:
        UserError: the decoder cannot run, or the store cannot be read.
        OSError: a copy cannot be written.
    """
    sources = batch.files()
    with batch.local_files(sources) as files:
        decoded = iter(decoder(files, [file.cuts for file in sources]))
        for number, file in enumerate(sources):
            first = next(decoded)
            problem = ""
            if listed := file.sources[0].listed:
                copy = Path(files[number])
                problem = copy_problem(copy, listed)
            clips = [first, *itertools.islice(decoded, len(file.sources) - 1)]
            if listed and problem != GONE:
                copy.unlink()
            yield from (
                CheckResult(one.name, problem or clip.error) for one, clip in zip(file.sources, clips, strict=True)
            )
