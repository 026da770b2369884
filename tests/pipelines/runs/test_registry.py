from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import vlmodels
from pipelines.runs.registry import needed_packages


def test_a_registered_model_pins_what_it_needs_and_names_nothing_that_a_stranger_could_register():
    pins = dict(line.split("==") for line in needed_packages())
    assert "vidadapt" not in pins
    assert all(version(name) == pinned for name, pinned in pins.items())


def test_what_vlmodels_imports_at_once_is_among_it():
    imported = set()
    for path in Path(vlmodels.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    others = imported - sys.stdlib_module_names - {"vlmodels"}
    pins = {line.partition("==")[0].replace("-", "_") for line in needed_packages()}
    owners = packages_distributions()
    assert not [name for name in others if not {o.replace("-", "_") for o in owners.get(name, [name])} & pins]
