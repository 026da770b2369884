"""Every script, started as a lone copy of its own file."""

from __future__ import annotations

import pytest

from tests.helpers.scripts import SCRIPTS, run_copy, run_script

PROBE = """
import sys, runpy
sys.argv = ["x", "--help"]
try:
    runpy.run_path("{script}.py", run_name="__main__")
except SystemExit:
    pass
heavy = {{"torch", "ray", "mlflow", "openai", "open_clip", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_of_a_lone_copy_imports_nothing_heavy(script, tmp_path):
    done = run_copy(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE.format(script=script))
    done = run_script(probe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
