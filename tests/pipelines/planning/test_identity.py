"""The name of a run holds a digest of all that computes it, and of nothing that only shows it."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from pipelines.cluster.node_facts import sources_digest
from pipelines.planning.identity import (
    ROOT,
    SHOWS,
    code_version,
    computing_files,
    digest_of_computing,
    tokenizer_digest,
    weights_digest,
)
from vlmodels.toy import TOY_WEIGHTS

WORKER = "pipelines/runs/worker.py"

# What the worker imports and no run's name holds, each with the reason.
EXEMPT = {
    "pipelines/cluster/node_facts.py": "refuses a machine that differs; computes nothing",
    "pipelines/records/decision.py": "the form of a finished run's decision; numbers go through it unchanged",
    "pipelines/records/home.py": "moves checkpoints whole; what is in them is written and read by runs/ and vlmodels/",
    "pipelines/records/kept.py": "copies checkpoints whole, and finds those that are damaged",
    "pipelines/records/part.py": "the form of a finished run's record; numbers go through it unchanged",
    "pipelines/records/run_file.py": "reads and writes a finished run's record; numbers go through it unchanged",
    "pipelines/storage/cache.py": "moves files, checked by SHA-256 or by size and time",
    "pipelines/storage/digests.py": "remembers which files were hashed; changes none",
    "pipelines/storage/files.py": "writes files whole, and hashes them",
    "pipelines/storage/place.py": "moves bytes; ingested data are checked by SHA-256",
    "pipelines/videos/catalog.py": "describes data sets; what is made of them, the split, is in the name",
    "pipelines/videos/kept_lists.py": "names the folder of the lists next to ingested data; the split is in the name",
    "pipelines/videos/list_entries.py": "reads lists, of which the split is made, and that is in the name",
    "pipelines/videos/list_files.py": "reads lists, of which the split is made, and that is in the name",
    "pipelines/videos/list_folder.py": "reads lists, of which the split is made, and that is in the name",
    "pipelines/videos/text_file.py": "reads lists, of which the split is made, and that is in the name",
    "pipelines/videos/time_columns.py": "reads lists, of which the split is made, and that is in the name",
    "pipelines/videos/video_files.py": "says which suffixes are videos'; what is read of a list is in the name",
}


def reached_from(start: str) -> set[str]:
    """All files of ``pipelines`` and ``vlmodels`` that a file imports: at once, late, or only for its types."""
    files = {
        path.relative_to(ROOT).as_posix() for top in ("pipelines", "vlmodels") for path in ROOT.glob(f"{top}/**/*.py")
    }
    found, left = set(), [start]
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        for name in imported(ast.parse((ROOT / file).read_text())):
            path = name.replace(".", "/")
            parents = [f"{parent.as_posix()}/__init__.py" for parent in Path(path).parents]
            left += files.intersection([f"{path}.py", f"{path}/__init__.py", *parents])
    return found


def imported(tree: ast.Module) -> set[str]:
    """Names of modules that a file imports anywhere; those of what it takes out of modules may be among them."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports have whole names"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def has_code(file: str) -> bool:
    """Whether there is more in a file than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse((ROOT / file).read_text()).body)


def test_the_name_holds_all_that_the_worker_reaches():
    reached = {file for file in reached_from(WORKER) if has_code(file)}
    assert {"pipelines/training/loop.py", "pipelines/evaluation/metrics.py", "vlmodels/checkpoint.py"} <= reached
    missing = reached - set(computing_files(ROOT)) - SHOWS.keys() - EXEMPT.keys()
    assert not missing, f"{sorted(missing)}: list them in COMPUTES, or in EXEMPT with a reason"
    assert not EXEMPT.keys() - reached, "no exemption that nothing needs"


def test_every_exception_exists_and_has_a_reason():
    for file, reason in (SHOWS | EXEMPT).items():
        assert (ROOT / file).is_file(), file
        assert len(reason.split()) > 3, file
    assert not EXEMPT.keys() & set(computing_files(ROOT))


def test_a_file_that_computes_is_not_called_one_that_shows():
    """Nothing is learned or scored there: these files take no tensors and no methods."""
    for file in SHOWS:
        names = imported(ast.parse((ROOT / file).read_text()))
        assert not any(re.match(r"torch\b|pipelines\.(training|evaluation)\b(?!\.errors)", name) for name in names), (
            file
        )


@pytest.fixture
def checkout(tmp_path):
    for package in ("pipelines", "vlmodels"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    return tmp_path


def test_a_copy_of_the_code_has_the_same_version(checkout):
    assert digest_of_computing(checkout) == code_version()


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("pipelines/training/loop.py", True),
        ("pipelines/evaluation/metrics.py", True),
        ("pipelines/shards/clip_store.py", True),
        ("pipelines/protocols/make_split.py", True),
        ("pipelines/config/schema.py", True),
        ("pipelines/runs/worker.py", True),
        ("vlmodels/checkpoint.py", True),
        ("pipelines/reports/score_plots.py", False),
        ("pipelines/reports/run_page.py", False),
        ("pipelines/sweeps/report/page.py", False),
        ("pipelines/runs/tracking.py", False),
        ("pipelines/protocols/save.py", False),
        ("vlmodels/command.py", False),
        ("vlmodels/matrix.py", False),
        ("vlmodels/published.py", False),
        ("pipelines/storage/place.py", False),
        ("pipelines/report.py", False),
    ],
)
def test_touching_a_file_changes_the_version_if_it_computes(checkout, file, changes):
    with (checkout / file).open("a") as opened:
        opened.write("\n")
    assert (digest_of_computing(checkout) != code_version()) == changes


def test_a_new_a_moved_and_a_removed_file_change_the_version(checkout):
    versions = {digest_of_computing(checkout)}
    (checkout / "pipelines/training/extra.py").write_text("a = 1\n")
    versions.add(digest_of_computing(checkout))
    (checkout / "pipelines/training/extra.py").rename(checkout / "pipelines/training/other.py")
    versions.add(digest_of_computing(checkout))
    (checkout / "pipelines/training/errors.py").unlink()
    versions.add(digest_of_computing(checkout))
    assert len(versions) == 4


def test_machines_are_compared_by_more_than_names_runs():
    assert re.fullmatch("[0-9a-f]{64}", code_version())
    assert sources_digest() != code_version()


def test_a_tokenizer_beside_the_weights_is_part_of_a_runs_name_where_the_backbone_reads_it(tmp_path):
    weights = tmp_path / "a.pt"
    weights.write_bytes(b"1234")
    assert tokenizer_digest("ViT-B-16-SigLIP2", str(weights)) == ""
    digests = set()
    for content in ("{}", "[]"):
        (tmp_path / "tokenizer.json").write_text(content)
        digests.add(tokenizer_digest("ViT-B-16-SigLIP2", str(weights)))
    assert len(digests - {""}) == 2
    assert tokenizer_digest("PE-Core-B-16", str(weights)) == tokenizer_digest("toy", "toy") == ""
    assert tokenizer_digest("ViT-B-16-SigLIP2", None) == tokenizer_digest("ViT-B-16-SigLIP2", "webli") == ""


def test_weights_are_named_by_their_content(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"1234")
    assert weights_digest(str(tmp_path / "a.pt")) == (
        "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"
    )
    assert weights_digest("toy") == weights_digest(str(TOY_WEIGHTS))
    assert (weights_digest("openai"), weights_digest(None)) == ("openai", "None")
