"""Scripts started as users start them: in a process of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PIPELINES = Path(__file__).parents[2] / "pipelines"
SCRIPTS = sorted(path.stem for path in PIPELINES.glob("*.py") if path.stem not in ("__init__", "run_script"))


def script_path(name: str) -> Path:
    """Return the file of a script."""
    return PIPELINES / f"{name}.py"


def run_script(
    script: str | Path, *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script, named or by its file, in an environment that names no MLflow; ``environment`` is added to it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    file = script_path(script) if isinstance(script, str) else script
    return subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=inherited | {"RAY_USAGE_STATS_ENABLED": "0"} | environment,
        timeout=120,
    )


def run_copy(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a lone copy of a script in ``cwd``, as ``ray submit`` leaves it on a cluster's head."""
    return run_script(Path(shutil.copy(script_path(script), cwd)), *arguments, cwd=cwd)
