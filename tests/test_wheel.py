"""The wheel holds every module and every data file, and from it alone all modules load and programs start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vlmodels", "llm_descriptions", "tune_spaces", "pipelines")
IMPORT_ALL = """
import importlib, pathlib, sys
root, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
sys.path.insert(0, str(root))
for name in names:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to(root), module.__file__
print(len(names))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The content of a wheel, built from a copy of the packages: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def files() -> list[Path]:
    """List the files of the packages, and those that describe them."""
    found = [Path("pyproject.toml"), Path("README.md"), Path("LICENSE")]
    for package in PACKAGES:
        paths = (ROOT / package).rglob("*")
        found += [path.relative_to(ROOT) for path in paths if path.is_file() and "__pycache__" not in path.parts]
    return found


def test_the_wheel_holds_all_files_of_the_packages(unpacked):
    missing = [str(path) for path in files() if path.parts[0] in PACKAGES and not (unpacked / path).is_file()]
    assert not missing, "declare it in pyproject.toml: [tool.setuptools.package-data]"


def test_every_module_of_the_wheel_can_be_imported(unpacked, tmp_path):
    paths = [path.with_suffix("").parts for path in files() if path.suffix == ".py"]
    names = [".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in paths if parts[-1] != "__main__"]
    command = [sys.executable, "-c", IMPORT_ALL, str(unpacked), *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == len(names) > 150


def start(unpacked: Path, folder: Path, *arguments: str | Path) -> str:
    """Start Python in a folder with only the wheel's content added to its path; return what it prints."""
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "flag", "word"), [("pipelines.b2n", "--help", "usage"), ("vlmodels", "--list", "adaptformer")]
)
def test_programs_of_the_wheel_start_as_modules(unpacked, tmp_path, module, flag, word):
    assert word in start(unpacked, tmp_path / "empty", "-m", module, flag)


def test_a_script_of_the_wheel_starts_by_its_path(unpacked, tmp_path):
    assert "usage" in start(unpacked, tmp_path / "empty", unpacked / "pipelines" / "b2n.py", "--help")


def test_a_lone_copy_of_a_script_starts(unpacked, tmp_path):
    """As ``ray submit`` leaves it on a cluster's head."""
    copy = shutil.copy(unpacked / "pipelines" / "b2n.py", tmp_path)
    assert "usage" in start(unpacked, tmp_path / "empty", copy, "--help")
