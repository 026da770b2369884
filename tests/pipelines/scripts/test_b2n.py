"""``b2n.py``, for all scripts of protocols: the plan, and mistakes of a user."""

from __future__ import annotations

import pytest

from tests.helpers.scripts import run_copy


def test_dry_run_prints_the_plan_and_makes_nothing(small_data, tmp_path):
    done = run_copy("b2n", "--data", small_data, "--set", "method.layers=2-3", "--set", "method.alpha=0", "--dry-run",
                    "--set", "optim.batch_size=4", "--set", "protocol.shots=4", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("toy", "msta", "layers=2-3", "trains", "test 'novel'", "lr 0.001"):
        assert words in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["b2n.py"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "mstaa"], "did you mean 'msta'"),
        (["--set", "optim.lrr=1"], "did you mean 'lr'"),
        (["--data", "nowhere"], "nowhere"),
        (["--backbone", "ViT-B-61", "--pretrained", "none"], "did you mean"),
        (["--backbone", "ViT-B-16"], "needs --pretrained"),
        (["--backbone", "ViT-B-16", "--pretrained", "none", "--register", "x"], "cannot be registered"),
        (["--lists", "nolists"], "nolists"),
    ],
)
def test_a_mistake_is_one_line_without_traceback(small_data, tmp_path, arguments, words):
    done = run_copy("b2n", "--data", small_data, "--set", "method.alpha=0", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
