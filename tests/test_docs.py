"""What the documents name exists: files, modules, names, headings, make's targets, flags and settings."""

from __future__ import annotations

import dataclasses
import functools
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config.resolve import help_lines
from vlmodels import methods

ROOT = Path(__file__).parents[1]
PROSE = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
COMMANDS = ["cluster.yaml", *sorted(f"deploy/{path.name}" for path in (ROOT / "deploy").iterdir()), "Makefile"]
DOCUMENTS = [*PROSE, *COMMANDS]
PACKAGES = "pipelines|vlmodels|llm_descriptions|tune_spaces|tests|benchmarks"
SCRIPTS = sorted(path.stem for path in (ROOT / "pipelines").glob("*.py") if path.stem not in ("__init__", "run_script"))
OTHER_PROGRAMS = ("ray", "mlflow", "uv", "pip", "kubectl", "docker")
"""Programs in the documents whose flags are not ours."""

document = pytest.mark.parametrize("name", DOCUMENTS)
prose = pytest.mark.parametrize("name", PROSE)


def read(name: str) -> str:
    """Return a document with its continued lines joined."""
    return (ROOT / name).read_text().replace("\\\n", " ")


def in_code(text: str) -> list[str]:
    """Return the inline code of a Markdown text, and the lines of its blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [*(" ".join(code.split()) for code in inline), *(line for block in blocks for line in block.splitlines())]


# Files, modules and names


@document
def test_files_exist(name):
    """``NAME`` stands for any name, as ``*`` does."""
    paths = re.findall(rf"(?<![\w/.~-])(?:{PACKAGES}|docs|deploy)/[\w./*-]*\w", read(name))
    assert [path for path in paths if not any(ROOT.glob(path.replace("NAME", "*")))] == []


@prose
def test_python_files_exist(name):
    """A file is named from the root, or from ``pipelines/``, where scripts need no folder."""
    named = {path for code in in_code(read(name)) for path in re.findall(r"(?<![\w/.-])[\w/*]+\.py\b", code)}
    paths = [path.replace("NAME", "*") for path in named]
    assert [path for path in paths if not any((*ROOT.glob(path), *(ROOT / "pipelines").rglob(path)))] == []


@document
def test_modules_and_names_exist(name):
    text = read(name)
    named = set(re.findall(rf"\b((?:{PACKAGES})(?:\.[A-Za-z_]\w*)+)", text))
    files = {dotted for dotted in named if dotted.rpartition(".")[2] in ("py", "md", "toml", "yaml")}
    assert [dotted for dotted in sorted(named - files) if not is_module(dotted) and not is_name(dotted)] == []
    started = re.findall(rf"python3? -m ((?:{PACKAGES})\b[\w.]*)", text)
    assert [dotted for dotted in started if not is_module(dotted)] == []


def is_module(dotted: str) -> bool:
    """Return whether ``python -m DOTTED`` finds a file."""
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def is_name(dotted: str) -> bool:
    """Return whether this is a function, class or method of ours."""
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


@prose
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read(name))
    here = [link for link in links if "://" not in link]
    assert [link for link in here if not ((ROOT / name).parent / link).exists()] == []


def test_headings_that_comments_name_exist():
    """``docs/RAY.md#sigint`` is the heading ``## SIGINT`` of that file."""
    sources = [path for package in PACKAGES.split("|") for path in (ROOT / package).rglob("*.py")]
    files = [path for path in sources if path != Path(__file__)] + [ROOT / name for name in DOCUMENTS]
    named = {link for path in files for link in re.findall(r"docs/\w+\.md#[\w-]+", path.read_text())}
    assert named
    assert [link for link in sorted(named) if link.partition("#")[2] not in headings(link.partition("#")[0])] == []


@functools.cache
def headings(name: str) -> frozenset[str]:
    """Return the anchors of a Markdown file, made as GitHub makes them."""
    path = ROOT / name
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE) if path.exists() else []
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


@document
def test_targets_of_make_exist(name):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = in_code(read(name)) if name.endswith(".md") else []
    named = {target for line in code for target in re.findall(r"^make ([\w-]+)", line)}
    assert not named - targets


# Flags and settings


@functools.cache
def flags(script: str) -> frozenset[str]:
    """Return the flags that ``--help`` of a script, or of ``vlmodels``, shows."""
    module = script if script == "vlmodels" else f"pipelines.{script}"
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=True)
    return frozenset(re.findall(r"(?<![\w-])--[a-z][\w-]*", done.stdout.partition("settings for --set")[0]))


def commands(name: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a document as (script, flags): in blocks and inline code, or in all of a YAML file."""
    text = read(name)
    lines = in_code(text) if name.endswith(".md") else [" ".join(re.sub(r"^ *# ?", "", text).split())]
    script = "|".join(SCRIPTS)
    start = re.compile(rf"\b(?P<file>{script})\.py\b|\bpipelines\.(?P<module>{script})\b|-m (?P<package>vlmodels)\b")
    return [(match[match.lastgroup], flags_in(line[match.end() :])) for line in lines for match in start.finditer(line)]


def flags_in(line: str) -> list[str]:
    """Return the flags in a shell command, up to a comment or a second command."""
    command = re.split(r" #|[|;&]", line)[0]
    return [word.partition("=")[0] for word in split(command) if re.match(r"--[a-z]", word)]


def split(line: str) -> list[str]:
    """Return the words of a shell command, of which a document may show a part alone."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


@pytest.mark.parametrize("name", [*PROSE, "deploy/kuberay.yaml"])
def test_scripts_know_the_flags_of_their_examples(name):
    unknown = {f"{script} {flag}" for script, given in commands(name) for flag in given if flag not in flags(script)}
    assert not unknown


def test_examples_are_found():
    """Commands in blocks, over several lines, inline, and in a cluster's job."""
    found = commands("README.md")
    assert {"ingest", "describe", "supervised", "predict", "sweep", "report", "vlmodels"} <= {name for name, _ in found}
    submitted = ["--data", "--out", "--method", "--descriptions", "--backbone", "--pretrained", "--workers", "--gpu"]
    assert ("b2n", submitted) in found
    assert ("ingest", ["--size"]) in found
    ((script, given),) = commands("deploy/kuberay.yaml")
    assert (script, given[:2], given[-1]) == ("b2n", ["--data", "--out"], "--register")


@prose
def test_flags_in_the_text_are_those_of_a_script(name):
    known = frozenset().union(*(flags(script) for script in [*SCRIPTS, "vlmodels"]))
    unknown = set()
    for code in in_code(read(name)):
        words = split(code)
        if any(word in OTHER_PROGRAMS for word in words):
            continue
        given = set(flags_in(code))
        if benchmark := re.search(r"benchmarks/\w+\.py", code):
            source = (ROOT / benchmark[0]).read_text()
            unknown |= {flag for flag in given if f'"{flag}"' not in source}
        else:
            unknown |= given - known
    assert not unknown


@pytest.mark.parametrize("name", ["README.md", "docs/SCALING.md"])
def test_settings_exist(name):
    settings = {line.partition("=")[0].strip() for line in help_lines().splitlines()}
    settings |= {f"method.{field.name}" for m in methods.names() for field in dataclasses.fields(methods.get(m).Config)}
    groups = {key.partition(".")[0] for key in settings if "." in key}
    pattern = rf"(?<![\w./-])((?:{'|'.join(sorted(groups))})\.[a-z]\w*)(?![\w./(])"
    named = {key for code in in_code(read(name)) for key in re.findall(pattern, code)}
    assert not named - settings
    assert named or name != "README.md"
