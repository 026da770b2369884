"""The command line of ``describe.py``."""

from __future__ import annotations

import pytest

from pipelines.descriptions.flags import parse


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--from-published", "x", "--dry-run"], "--dry-run goes with --model"),
        (["--from-published", "x", "--prompt", "msta-v1"], "--prompt goes with --model"),
        (["--from-published", "x", "--concurrency", "8"], "--concurrency goes with --model"),
        (["--from-published", "x", "--context", "77"], "--context goes with --model"),
        (["--report", "--base-url", "http://x/v1"], "--base-url goes with --model"),
        (["--model", "m", "--price-in", "0", "--price-out", "0"], "--price-in goes with --dry-run"),
        (["--model", "m", "--index-labels", "x.csv"], "--index-labels goes with --from-published"),
        (["--model", "m", "--export-style", "ost"], "--export-style goes with --export"),
        (["--model", "m", "--backbone", "toy"], "--backbone goes with --report"),
        (["--model", "m", "--dry-run", "--report"], "--dry-run writes nothing"),
        (["--model", "m", "--dry-run", "--export", "x"], "--dry-run writes nothing"),
    ],
)
def test_flags_that_do_not_go_together(change, message, capsys):
    with pytest.raises(SystemExit):
        parse("", ["--labels", "labels.csv", "--out", "o", *change])
    assert message in capsys.readouterr().err
