"""How scripts end: exit codes, and errors in one line."""

from __future__ import annotations

import pytest

from llm_descriptions.errors import DescriptionError
from pipelines.run_script import run_script
from vlmodels.errors import UserError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Put back what ``run_script`` sets."""
    for name in ("RAY_USAGE_STATS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
                 "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "GIT_PYTHON_REFRESH"):  # fmt: skip
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_script_exits_with_its_code(returned, code):
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: returned)
    assert ended.value.code == code


@pytest.mark.parametrize("error", [UserError("no such list"), DescriptionError("no such list")])
def test_a_mistake_is_one_line_and_exit_code_2(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no such list\n"


def test_an_interrupt_ends_quietly_and_a_bug_with_its_traceback():
    def interrupted():
        raise KeyboardInterrupt

    def broken():
        raise ValueError("a bug")

    with pytest.raises(SystemExit) as ended:
        run_script(interrupted)
    assert ended.value.code == 130
    with pytest.raises(ValueError, match="a bug"):
        run_script(broken)
