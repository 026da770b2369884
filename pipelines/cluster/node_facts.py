"""What one machine of a cluster has, found there by a task: versions, sources, data, disks, GPUs.

The task is sent by value (``ray.cloudpickle.register_pickle_by_value``) and this file needs the standard library alone:
a machine where the project is missing, or is an older one, can answer too. Questions and answers are therefore plain
values; their types are declared here and checked only statically.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

EXACT = ("torch", "ray", "open_clip_torch", "vidadapt")
LOOSE = ("pyarrow", "numpy", "safetensors")
"""Packages of which another minor version computes and reads the same."""
SOURCES = ("pipelines", "vlmodels")
_INSTALL = "install there what the driver has (cluster.yaml: setup_commands)"
_COUNT_GPUS = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
FIRST_BYTES = 4096
Look = tuple[int, bytes]
"""Size of a file and its first bytes."""


class Request(TypedDict):
    """What a machine is asked."""

    data: list[str]  # folders or URIs of ingested data
    weights: str  # a file, or ""
    beside: list[str]  # files of its tokenizer
    out: str  # folder or URI of the runs
    shared: str  # a file in a local ``out`` that the driver wrote, or ""
    sources: str  # digest of the driver's sources: stores are opened by these alone; by any if it is ""
    cache: bool  # whether to measure the cache
    gpus: bool  # whether to count the GPUs


class Versions(TypedDict):
    """What must be the same wherever a run computes."""

    python: str
    packages: dict[str, str]  # versions by name, "" where missing
    sources: str  # digest, "" where missing


class DataFacts(TypedDict, total=False):
    """An ingested data set; ``error`` alone if it cannot be read, nothing if it was not looked at."""

    digest: str
    layout: str
    bytes: int
    largest: int  # bytes of the largest shard
    error: str


class FileFacts(TypedDict, total=False):
    """A file; ``error`` alone if it cannot be read, nothing if it was not looked at."""

    bytes: int
    sha256: str
    error: str


class CacheFacts(TypedDict):
    """The folder for copies of shards; sizes in bytes."""

    folder: str
    free: int
    held: int  # by copies of earlier runs
    writable: bool


class GpuFacts(TypedDict):
    """How many GPUs PyTorch sees, and the last line of its complaints."""

    seen: int
    complaint: str


class MachineFacts(Versions):
    """A machine's answer to a ``Request``; None where the request left a part out."""

    data: dict[str, DataFacts]
    weights: FileFacts
    beside: dict[str, FileFacts]
    shared: Look | None
    out: str  # why it cannot be written, or ""
    cache: CacheFacts | None
    gpus: GpuFacts | None


def facts(request: Request, project: Sequence[str] = SOURCES) -> MachineFacts:
    """Answer what ``request`` asks of this machine.

    Args:
        request: the questions.
        project: packages whose sources are compared.
    """
    versions = _versions((*EXACT, *LOOSE), project)
    stores = bool(versions["sources"]) and request["sources"] in ("", versions["sources"])
    return {
        **versions,
        "data": {where: _data(where, stores=stores) for where in request["data"]},
        "weights": _file(request["weights"]) if request["weights"] else {},
        "beside": {path: _file(path) for path in request["beside"]},
        "shared": look(request["shared"]) if request["shared"] else None,
        "out": _unwritable(request["out"], shared=request["shared"], stores=stores),
        "cache": _cache() if request["cache"] else None,
        "gpus": gpus() if request["gpus"] else None,
    }


def own() -> Versions:
    """Return what must be the same wherever a run computes, as it is here."""
    return _versions(EXACT, SOURCES)


def differences(expected: Versions | None) -> str:
    """Compare this process with ``expected``, the driver's ``own()``; with None nothing differs.

    Workers on machines that joined after the cluster was checked ask this: it takes some milliseconds and no task.

    Returns:
        What differs here and the remedy, to follow the name of this machine; "" if nothing does.
    """
    return "; ".join(compare_versions(expected, own())[0]) if expected else ""


def compare_versions(here: Versions, there: Versions) -> tuple[list[str], list[str]]:
    """Compare versions and sources of the driver (``here``) with those of another machine.

    Returns:
        What forbids a worker there, with its remedy; and what is merely worth a note.
    """
    problems: list[str] = []
    unlike: list[str] = []
    notes: list[str] = []
    if not there["sources"]:
        problems.append("vidadapt is not installed; pip install it there (cluster.yaml: setup_commands)")
    elif there["sources"] != here["sources"]:
        unlike.append(
            f"vidadapt {there['packages']['vidadapt']} with sources {there['sources'][:8]} instead of "
            f"{here['packages']['vidadapt']} with {here['sources'][:8]}"
        )
    if there["python"] != here["python"]:
        same = _parts(there["python"], 2) == _parts(here["python"], 2)
        (notes if same else unlike).append(f"Python {there['python']} instead of {here['python']}")
    unlike_packages, package_notes = _compare_packages(here["packages"], there["packages"])
    unlike += unlike_packages
    notes += package_notes
    if unlike:
        problems.append(f"{', '.join(unlike)}: {_INSTALL}")
    return problems, notes


def _compare_packages(here: Mapping[str, str], there: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return what must be installed there, and what may stay as it is."""
    unlike: list[str] = []
    notes: list[str] = []
    for name, wanted in here.items():
        found = there.get(name, "")
        if name == "vidadapt" or not wanted or found == wanted:
            continue
        if not found:
            unlike.append(f"{name} {wanted} is not installed")
            continue
        count = 1 if name in LOOSE else None
        same = _parts(found, count) == _parts(wanted, count)
        (notes if same else unlike).append(f"{name} {found} instead of {wanted}")
    return unlike, notes


def _parts(version: str, count: int | None) -> list[str]:
    """Return the first parts of a version; what follows a ``+`` names the build, and may differ with the hardware."""
    return version.partition("+")[0].split(".")[:count]


def _versions(packages: Sequence[str], project: Sequence[str]) -> Versions:
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "sources": sources_digest(project),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def sources_digest(project: Sequence[str] = SOURCES) -> str:
    """Return the SHA-256 of all sources of these packages as they are installed here; "" if one of them is not.

    It compares machines; runs are named by ``planning.identity.code_version``.
    """
    digest = hashlib.sha256()
    for package in project:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return ""
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _data(where: str, *, stores: bool) -> DataFacts:
    """Read index.json, without the project's own reader of it if the folder is local: it may be missing here."""
    try:
        if "://" not in where:
            text = (Path(where) / "index.json").read_bytes()
        elif stores:
            from pipelines.storage.place import QUICK, Place

            text = (Place.open(where, attempts=QUICK) / "index.json").read()
        else:
            return {}
        plain = json.loads(text)
        sizes = [shard["bytes"] for shard in plain["shards"]]
        # The order of the shards, whose names hold the videos' times of change, decides which rank reads which clips.
        order = json.dumps([plain["manifest_sha256"], *(shard["file"] for shard in plain["shards"])])
        layout = hashlib.sha256(order.encode()).hexdigest()
        return {"digest": plain["digest"], "layout": layout, "bytes": sum(sizes), "largest": max(sizes, default=0)}
    except (FileNotFoundError, NotADirectoryError):
        return {"error": "there is no index.json"}
    except (OSError, ValueError, KeyError) as error:
        if "://" not in where:
            return {"error": str(error)}
        from pipelines.storage.place import why

        return {"error": why(error)}


def _file(path: str) -> FileFacts:
    try:
        with Path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": Path(path).stat().st_size, "sha256": sha256}
    except OSError as error:
        return {"error": error.strerror or str(error)}


def look(path: str) -> Look | None:
    """Return a file's size and first bytes, which distinguish it from others; None if this machine has none.

    The file is waited for some seconds, as a network's folder may show it late.
    """
    for _ in range(10):
        try:
            with Path(path).open("rb") as file:
                return os.fstat(file.fileno()).st_size, file.read(FIRST_BYTES)
        except OSError:
            time.sleep(0.3)
    return None


def looks(paths: Sequence[str]) -> list[Look | None]:
    """Return ``look`` of each path."""
    return [look(path) for path in paths]


def _unwritable(out: str, *, shared: str, stores: bool) -> str:
    try:
        if "://" not in out:
            if Path(shared).is_file():  # else this is another folder of that name: leave nothing in it
                tempfile.TemporaryFile(dir=Path(shared).parent).close()
        elif stores:
            from pipelines.storage.place import check_writable

            check_writable(out)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _cache() -> CacheFacts:
    folder = Path(os.environ.get("VIDADAPT_CACHE") or "~/.cache/vidadapt").expanduser()
    held = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # other jobs rename and remove files meanwhile
                held += Path(parent, name).stat().st_size
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return {
        "folder": str(folder),
        "free": shutil.disk_usage(existing).free,
        "held": held,
        "writable": os.access(existing, os.W_OK),
    }


def gpus(script: str = _COUNT_GPUS) -> GpuFacts:
    """Count the GPUs that PyTorch sees, in a process of its own (docs/RAY.md#hidden-gpus)."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES" or value}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=90
    )
    complaint = done.stderr.strip().rpartition("\n")[2]
    return {"seen": int((done.stdout.split() or ["0"])[-1]), "complaint": complaint[:200]}
