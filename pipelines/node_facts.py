"""What one machine of a cluster is, as plain values, found there by a task.

The task is sent by value (``ray.cloudpickle.register_pickle_by_value``) and this file needs the standard library alone:
a machine where the project is missing, or is an older one, can answer too.
"""

from __future__ import annotations

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "ray", "open_clip_torch", "pyarrow", "numpy", "safetensors", "vidadapt")
SOURCES = ("pipelines", "vlmodels")
_COUNT = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def facts(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer what ``request`` asks of this machine.

    Args:
        request: ``data`` (paths or URIs), ``weights`` (a file or ""), ``out`` (where runs are kept), ``shared`` (a file
            in a local ``out`` that the driver wrote, or ""), ``cache`` and ``gpus`` (whether to look at them), and
            ``sources`` (digest of the driver's code: stores are opened with this code alone, or with any if it is "").

    Returns:
        ``python``, ``packages`` (versions, "" where missing), ``sources`` (digest, "" where missing), ``data`` (for
        each name ``digest`` or ``error``), ``weights``, ``shared`` (the file's text), ``out`` (why it cannot be
        written, or ""), ``cache`` and ``gpus``.
    """
    own = sources_digest()
    stores = bool(own) and request["sources"] in ("", own)
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "sources": own,
        "data": {where: _index(where, stores) for where in request["data"]},
        "weights": _file(request["weights"]) if request["weights"] else {},
        "shared": _text(request["shared"]) if request["shared"] else "",
        "out": _unwritable(request["out"], shared=request["shared"], stores=stores),
        "cache": _cache() if request["cache"] else {},
        "gpus": _gpus() if request["gpus"] else {},
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
    """Digest and sizes of ingested data, or why they cannot be read."""
    try:
        if "://" not in where:
            text = (Path(where) / "index.json").read_bytes()
        elif stores:
            from pipelines.storage import QUICK, Place

            text = (Place.open(where, attempts=QUICK) / "index.json").read()
        else:
            return {}
        plain = json.loads(text)
        sizes = [shard["bytes"] for shard in plain["shards"]]
        return {"digest": plain["digest"], "bytes": sum(sizes), "largest": max(sizes, default=0)}
    except (FileNotFoundError, NotADirectoryError):
        return {"error": "there is no index.json"}
    except (OSError, ValueError, KeyError) as error:
        if "://" not in where:
            return {"error": str(error)}
        from pipelines.storage import why

        return {"error": why(error)}


def _file(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": Path(path).stat().st_size, "sha256": sha256}
    except OSError as error:
        return {"error": error.strerror or str(error)}


def _text(path: str) -> str:
    """Return a file's text; it is waited for, as a network's folder may show it late."""
    for _ in range(10):
        try:
            return Path(path).read_text()
        except OSError:
            time.sleep(0.3)
    return ""


def _unwritable(out: str, *, shared: str, stores: bool) -> str:
    try:
        if "://" not in out:
            if Path(shared).is_file():  # else this is another folder of that name: leave nothing in it
                tempfile.TemporaryFile(dir=Path(shared).parent).close()
        elif stores:
            from pipelines.rundir import check_writable

            check_writable(out)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _cache() -> dict[str, Any]:
    """Space for copies of shards, in bytes: free, and held by copies of earlier runs."""
    folder = Path(os.environ.get("VIDADAPT_CACHE") or "~/.cache/vidadapt").expanduser()
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
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
