"""The frame of every script: its environment, its exit code, and errors that a user can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def run_script(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its code; print a user's mistake as ``error: ...`` and exit with code 2."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        code = main() or 0
    except KeyboardInterrupt:
        code = 130
    except ValueError as error:
        from llm_descriptions.errors import DescriptionError
        from vlmodels.errors import UserError

        if not isinstance(error, (UserError, DescriptionError)):
            raise
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)
