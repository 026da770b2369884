"""Tests lie where their module lies: ``tests/pipelines/runs/test_run.py`` is of ``pipelines/runs/run.py``."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGES = ("vlmodels", "llm_descriptions", "tune_spaces", "pipelines")

# Tests of more, or of less, than one module.
OTHERS = {
    "pipelines/cluster/test_autoscaled.py": "several modules, on a cluster that has no machine yet",
    "pipelines/ingestion/test_repair.py": "what an ingest does about damage that it finds",
    "pipelines/runs/test_every_method.py": "all methods, from the plan to the predictor",
    "pipelines/runs/test_frozen.py": "files of an older version, read by several modules",
    "pipelines/scripts/test_protocol_scripts.py": "the four scripts that train, on the same data",
    "pipelines/scripts/test_scripts.py": "what holds for every script",
    "pipelines/serving/test_page.py": "the page, in a real browser",
    "pipelines/serving/test_parts.py": "the small modules of the server",
    "pipelines/test_layout.py": "the imports of all modules",
    "vlmodels/methods/test_m2clip_heads.py": "the second half of test_m2clip.py",
    "vlmodels/methods/test_msta_loss.py": "the second half of test_msta.py",
    "vlmodels/methods/test_omniclip_parts.py": "the second half of test_omniclip.py",
    "vlmodels/test_golden_losses.py": "all methods: the losses on record",
    "vlmodels/test_method_contract.py": "all methods: what each must do",
    "vlmodels/test_one_space.py": "all methods: videos and texts are compared in one space",
}


def all_tests() -> list[str]:
    paths = (path for package in PACKAGES for path in (TESTS / package).rglob("test_*.py"))
    return sorted(path.relative_to(TESTS).as_posix() for path in paths)


def module_of(test: str) -> Path:
    """Return the file of the module that a test is of; the tests of scripts have a folder of their own."""
    path = Path(test)
    folder = Path("pipelines") if path.parent == Path("pipelines/scripts") else path.parent
    return folder / path.name.removeprefix("test_")


def test_each_test_lies_where_its_module_lies():
    lost = [test for test in all_tests() if test not in OTHERS and not (ROOT / module_of(test)).is_file()]
    assert not lost, "move it, or name it in OTHERS"


def test_the_exceptions_are_needed():
    assert set(OTHERS) <= set(all_tests())
    assert not [test for test in OTHERS if (ROOT / module_of(test)).is_file()]
