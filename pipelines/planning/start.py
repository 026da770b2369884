"""The trained adapter that a run starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.records.run_file import RECORD, RunRecord, Start, read
from pipelines.shards.clip_store import ClipStore
from pipelines.storage.cache import local_run
from vlmodels.errors import UserError


def about_start(adapter: Path | None) -> Start:
    """Return what an adapter was trained on, by the record in its folder; "" where there is none that can be read."""
    if adapter is None:
        return Start()
    try:
        record = _record_beside(adapter)
    except UserError:
        record = None
    if record is None:
        return Start(name="", protocol="", dataset="", data_digest="")
    return Start(
        name=record.name,
        protocol=record.protocol,
        dataset=record.dataset,
        data_digest=record.facts.data_digest,
    )


def start_notes(start: Path | None, stores: Sequence[ClipStore]) -> list[str]:
    """Say if the run to start from was trained on the same data, or if its record, which tells, cannot be used."""
    if start is None:
        return []
    try:
        _record_beside(start)
    except UserError as error:
        return [f"{error}: whether its training videos are among those scored is not known"]
    about = about_start(start)
    return [
        f"{about.name}, from which this starts, was trained on {store.name}: its training videos may be "
        "among those scored"
        for store in stores
        if about.data_digest == store.digest and about.protocol != "zero_shot"
    ]


def _record_beside(adapter: Path) -> RunRecord | None:
    """Read the record in an adapter's folder; None without one.

    Raises:
        UserError: there is one that cannot be used.
    """
    path = adapter.parent / RECORD
    return read(path, f"the start {adapter.parent.name}") if path.exists() else None


def start_file(start: str) -> Path:
    """Return the adapter file of a run's folder or URI, or of a registered model.

    Raises:
        UserError: there is none, or there are several.
    """
    from vlmodels.checkpoint import ADAPTER
    from vlmodels.model_folder import model_folder
    from vlmodels.run_folder import run_of

    return run_of(model_folder(local_run(start))) / ADAPTER
