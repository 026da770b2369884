"""What one machine of a cluster is, as plain values, found there by a task.

The task is sent by value (``ray.cloudpickle.register_pickle_by_value``) and this file needs the standard library alone:
a machine where the project is missing, or is an older one, can answer too.
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
from typing import Any

EXACT = ("torch", "ray", "open_clip_torch", "vidadapt")
LOOSE = ("pyarrow", "numpy", "safetensors")
"""Packages of which another minor version computes and reads the same."""
SOURCES = ("pipelines", "vlmodels")
_INSTALL = "install there what the driver has (cluster.yaml: setup_commands)"
FIRST_BYTES = 4096
Look = tuple[int, bytes]
_COUNT = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def facts(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer what ``request`` asks of this machine.

    Args:
        request: ``data`` (paths or URIs), ``weights`` (a file or ""), ``out`` (where runs are kept), ``shared`` (a file
            in a local ``out`` that the driver wrote, or ""), ``cache`` and ``gpus`` (whether to look at them), and
            ``sources`` (digest of the driver's code: stores are opened with this code alone, or with any if it is "").

    Returns:
        ``python``, ``packages`` (versions, "" where missing), ``sources`` (digest, "" where missing), ``data`` (for
        each name ``digest``, ``layout`` and sizes, or ``error``), ``weights``, ``shared`` (as ``look`` tells), ``out``
        (why it cannot be written, or ""), ``cache`` and ``gpus``.
    """
    installed = _installed((*EXACT, *LOOSE))
    stores = bool(installed["sources"]) and request["sources"] in ("", installed["sources"])
    return {
        **installed,
        "data": {where: _index(where, stores) for where in request["data"]},
        "weights": _file(request["weights"]) if request["weights"] else {},
        "shared": look(request["shared"]) if request["shared"] else None,
        "out": _unwritable(request["out"], shared=request["shared"], stores=stores),
        "cache": _cache() if request["cache"] else {},
        "gpus": _gpus() if request["gpus"] else {},
    }


def own() -> dict[str, Any]:
    """Return what must be the same wherever a run computes: ``python``, ``packages`` (versions) and ``sources``."""
    return _installed(EXACT)


def differences(expected: Mapping[str, Any]) -> str:
    """Compare this process with ``expected``, which is ``own()`` of the driver; of nothing ({}) nothing differs.

    For machines that joined after the cluster was asked: plain values, some milliseconds, no task.

    Returns:
        What differs here and the remedy, to be told after the name of this machine; "" if nothing does.
    """
    return "; ".join(compare_versions(expected, own())[0]) if expected else ""


def compare_versions(here: Mapping[str, Any], there: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compare versions and sources of the driver (``here``) with those of another machine.

    Returns:
        What forbids a worker there, with its remedy; and what is merely worth a note.
    """
    problems: list[str] = []
    told: list[str] = []
    notes: list[str] = []
    if not there["sources"]:
        problems.append("vidadapt is not installed; pip install it there (cluster.yaml: setup_commands)")
    elif there["sources"] != here["sources"]:
        told.append(
            f"vidadapt {there['packages']['vidadapt']} with sources {there['sources'][:8]} instead of "
            f"{here['packages']['vidadapt']} with {here['sources'][:8]}"
        )
    if there["python"] != here["python"]:
        same = _parts(there["python"], 2) == _parts(here["python"], 2)
        (notes if same else told).append(f"Python {there['python']} instead of {here['python']}")
    for name, wanted in here["packages"].items():
        found = there["packages"].get(name, "")
        if name == "vidadapt" or not wanted or found == wanted:
            continue
        if not found:
            told.append(f"{name} {wanted} is not installed")
            continue
        same = _parts(found, 1 if name in LOOSE else None) == _parts(wanted, 1 if name in LOOSE else None)
        (notes if same else told).append(f"{name} {found} instead of {wanted}")
    problems += [f"{', '.join(told)}: {_INSTALL}"] if told else []
    return problems, notes


def _parts(version: str, count: int | None) -> list[str]:
    """The first parts of a version; what follows a ``+`` names the build, and may differ with the hardware."""
    return version.partition("+")[0].split(".")[:count]


def _installed(packages: Sequence[str]) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "sources": sources_digest(),
    }


def sources_digest() -> str:
    """SHA-256 of the sources that compute a run, as they are installed here; "" if they are not."""
    digest = hashlib.sha256()
    for package in SOURCES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return ""
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _index(where: str, stores: bool) -> dict[str, Any]:
    """Digests of content and layout, and sizes, of ingested data; or why they cannot be read."""
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
        # Shards' names, which hold the videos' times of change, and their order tell who reads and scores which clips.
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


def _file(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": Path(path).stat().st_size, "sha256": sha256}
    except OSError as error:
        return {"error": error.strerror or str(error)}


def look(path: str) -> Look | None:
    """Return what tells a file from others, as this machine sees it: its size and first bytes; None if it has none.

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
    """``look`` at each of ``paths``."""
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


def _cache() -> dict[str, Any]:
    """Space for copies of shards, in bytes: free, and held by copies of earlier runs."""
    folder = Path(os.environ.get("VIDADAPT_CACHE") or "~/.cache/vidadapt").expanduser()
    held = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # other jobs rename and remove files meanwhile
                held += Path(parent, name).stat().st_size
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    writable = os.access(there, os.W_OK)
    return {"folder": str(folder), "free": shutil.disk_usage(there).free, "held": held, "writable": writable}


def _gpus() -> dict[str, Any]:
    """GPUs that PyTorch sees, counted in a process of its own: Ray hides them from a task that asked for none."""
    shown = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES" or value}
    command = [sys.executable, "-c", _COUNT]
    done = subprocess.run(command, env=shown, capture_output=True, text=True, check=False, timeout=90)  # noqa: S603
    said = done.stderr.strip().rpartition("\n")[2]
    return {"seen": int((done.stdout.split() or ["0"])[-1]), "said": said[:200]}
