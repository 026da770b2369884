"""Who may import whom (DESIGN: models know nothing of the pipeline), read from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "vlmodels": {"ray", "mlflow", "openai", "pipelines", "tune_spaces", "llm_descriptions"},
    "llm_descriptions": {"torch", "ray", "mlflow", "pipelines", "tune_spaces", "vlmodels"},
    "tune_spaces": {"pipelines"},
}
ALLOWED = {("vlmodels/model_folder.py", "mlflow")}  # lazily, to pull a model from the registry


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_package_imports_only_what_it_may(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        bad = {module for module in imports(path) & FORBIDDEN[package] if (name, module) not in ALLOWED}
        assert not bad, f"{name} imports {bad}"
