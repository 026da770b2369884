"""The house of ``pipelines/``: scripts at the top, storeys of subpackages below, imports that run downward.

Read from the sources, with the imports inside functions and those for type checkers: a circle that is only hidden
from the interpreter is a circle for whoever reads.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.metadata
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines"
PACKAGES = ("vlmodels", "llm_descriptions", "tune_spaces", "pipelines")
LONGEST_CHAIN = 12
LONGEST_SCRIPT = 120  # lines; demo.py is a program

# From the bottom to the top: a subpackage imports from those above it in this table only, and only through their doors.
DOORS = {
    "config": "schema protocols resolve check values plain record text",
    "storage": "place files cache scratch digests",
    "cluster": "session capacity preflight view ask_nodes node_facts process_group",
    "videos": "inputs list_choice list_folder list_files kept_lists catalog captions caveats locate remote flags "
    "split_names class_names label_check uris file_tree text_file unlabelled video_files",
    "toyworld": "world",
    "shards": "clip_store shard_cache shard_file index manifest integrity views prefetch",
    "ingestion": "ingest decode destination isolation presence presence_report summary",
    "protocols": "make_split split paper_views save",
    "training": "batches parts loop build pairs errors",
    "evaluation": "scorer reading metrics calibration decision cost",
    "records": "run_file decision home kept find summary ledger",
    "reports": "run_page ledger_page model_card attention page score_plots",
    "descriptions": "flags commands",
    "planning": "training_flags plan text identity start",
    "runs": "run registry record protocol_script tracking",
    "prediction": "batch few flags model queries rows search search_page search_text segments stored_features "
    "timeline_flags timelines videos",
    "serving": "limits server",
    "exporting": "package",
    "sweeps": "flags plan text session report.columns",
}
STOREYS = list(DOORS)
SCRIPTS = sorted(path.stem for path in PIPELINES.glob("*.py") if path.stem not in ("__init__", "run_script"))
NEVER_RAY = ("config", "storage", "videos", "shards", "protocols", "training", "evaluation", "records", "reports")
PRETRAIN = "pipelines.toyworld.pretrain"  # run as a module, so it ends as scripts do


@functools.cache
def modules() -> dict[str, Path]:
    """All modules of the four packages, by their names."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str) -> frozenset[tuple[str, str]]:
    """What a module imports anywhere, as (module, name of it); the name is "" for a whole module."""
    return imports_of(modules()[module])


@functools.cache
def imports_of(path: Path) -> frozenset[tuple[str, str]]:
    """The same for a file, which may be a test or a benchmark."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add((whole, "") if whole in modules() else (node.module, alias.name))
    return frozenset(found)


def room(module: str) -> str:
    """The subpackage of ``pipelines`` that a module is in; a script is a room of its own."""
    return module.split(".")[1]


def of_pipelines() -> list[str]:
    return [
        name for name in modules() if name.startswith("pipelines.") and name.removeprefix("pipelines.") not in DOORS
    ]


def test_every_folder_is_a_storey_with_a_docstring_alone():
    folders = {path.name for path in PIPELINES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(STOREYS)
    for folder in PIPELINES.rglob("*"):
        if folder.is_dir() and folder.name not in ("__pycache__", "templates", "page"):
            body = ast.parse((folder / "__init__.py").read_text()).body
            assert len(body) == 1, folder
            assert isinstance(body[0], ast.Expr), folder
            assert len(body[0].value.value.splitlines()) == 1, folder


def test_imports_run_downward():
    bad = []
    for module in of_pipelines():
        for target, _ in imports(module):
            if not target.startswith("pipelines.") or room(module) == room(target):
                continue
            here, there = room(module), room(target)
            if there == "run_script":
                allowed = here in SCRIPTS or module == PRETRAIN
            elif there in SCRIPTS:
                allowed = here == "demo"
            else:
                allowed = here in SCRIPTS or STOREYS.index(there) < STOREYS.index(here)
            if not allowed:
                bad.append(f"{module} -> {target}")
    assert not bad


def test_rooms_are_entered_through_their_doors():
    doors = {f"pipelines.{name}.{door}" for name, own in DOORS.items() for door in own.split()}
    used = set()
    bad = []
    for module in of_pipelines():
        for target, _ in imports(module):
            if target.startswith("pipelines.") and room(module) != room(target) and room(target) in DOORS:
                used.add(target)
                bad += [] if target in doors else [f"{module} -> {target}"]
    assert not bad
    assert not doors - used, "no unused door"


@pytest.mark.parametrize("package", PACKAGES)
def test_there_are_no_circles(package):
    graph = {
        name: {target for target, _ in imports(name) if target in modules() and target != name}
        for name in modules()
        if name == package or name.startswith(f"{package}.")
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def private_attributes(path: Path) -> set[str]:
    """The private names that a file takes out of our modules as attributes: ``module._name``."""
    tree = ast.parse(path.read_text())
    known = {}  # our modules, by what the file calls them
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            known |= {alias.asname or alias.name: prefix + alias.name for alias in node.names}
    known = {name: target for name, target in known.items() if target in modules()}
    return {
        f"{known[ast.unparse(node.value)]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) in known
    }


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_private_name_crosses_a_file():
    bad = []
    for top in (*PACKAGES, "tests", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            names = {
                f"{module}.{name}" for module, name in imports_of(path) if module in modules() and is_private(name)
            }
            bad += [f"{path.relative_to(ROOT)}: {name}" for name in names | private_attributes(path)]
    assert not bad


def test_private_names_are_found_however_they_are_imported(tmp_path):
    lines = """
import pipelines.runs.run
import vlmodels.clip as models
from pipelines.records import find
pipelines.runs.run._a, models._b, find._c, find.__file__, find.other, self._d
"""
    (tmp_path / "file.py").write_text(lines)
    assert private_attributes(tmp_path / "file.py") == {
        "pipelines.runs.run._a", "vlmodels.clip._b", "pipelines.records.find._c",
    }  # fmt: skip


def test_the_house_is_not_too_deep():
    graph: dict[str, set[str]] = {}
    for module in of_pipelines():
        below = {room(target) for target, _ in imports(module) if target.startswith("pipelines.")}
        graph.setdefault(room(module), set()).update(below - {room(module)})
    depth: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        depth[name] = 1 + max((depth[below] for below in graph.get(name, ())), default=0)
    assert max(depth.values()) <= LONGEST_CHAIN, depth


def test_the_top_is_scripts_alone():
    assert len(SCRIPTS) <= 17
    for script in SCRIPTS:
        text = (PIPELINES / f"{script}.py").read_text()
        assert "run_script(main)" in text, f"{script}.py is no script"
        assert "__file__" not in text, f"{script}.py looks for its neighbours: ray submit copies it alone"
        assert script == "demo" or len(text.splitlines()) <= LONGEST_SCRIPT, f"{script}.py is no thin script"
    assert not set(SCRIPTS) & set(STOREYS), "python -m pipelines.X would find the folder"


def test_no_entry_shadows_another_package():
    """``python pipelines/b2n.py`` puts this folder first on the path."""
    installed = {name.split(".")[0].lower() for name in importlib.metadata.packages_distributions()}
    entries = {path.stem for path in PIPELINES.iterdir()} - {"__init__", "__pycache__"}
    assert not entries & set(sys.stdlib_module_names)
    assert not entries & (installed - {"pipelines"})


def test_learning_knows_neither_ray_nor_mlflow():
    bad = [
        f"{module} -> {target}"
        for module in of_pipelines()
        for target, _ in imports(module)
        if room(module) in NEVER_RAY and target.split(".")[0] in ("ray", "mlflow")
    ]
    assert not bad


def test_contributing_shows_the_doors():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for storey, doors in DOORS.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{storey}` |"))
        assert row.split("|")[3].strip() == ", ".join(doors.split())
