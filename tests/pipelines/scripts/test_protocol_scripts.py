"""Each protocol through its script, end to end: plan, workers, scores, table, report."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from pipelines import few_shot, report, retrieval, supervised, zero_shot
from pipelines.runs.tracking import connect
from vlmodels.errors import UserError
from vlmodels.predictor import load

SMALL = (
    *("--method", "adaptformer", "--backbone", "toy", "--set", "method.dims=8", "--set", "optim.batch_size=4"),
    *("--set", "optim.epochs=2", "--set", "optim.warmup_epochs=1", "--set", "optim.lr=3e-3"),
    *("--set", "augment.mixup=0", "--set", "augment.cutmix=0", "--set", "optim.label_smoothing=0"),
)


def read_records(out):
    return {r["name"]: r for r in (json.loads(path.read_text()) for path in out.glob("*/run.json"))}


@pytest.fixture(scope="module")
def home(small_data, ray_session, tmp_path_factory):
    """Where all runs of this file go, and one supervised run in it."""
    out = tmp_path_factory.mktemp("protocols")
    arguments = ["--data", str(small_data), "--out", str(out), *SMALL, "--probe"]
    assert supervised.main(arguments) == 0
    return out


def test_supervised_with_the_temporal_probe(home):
    (record,) = [r for r in read_records(home).values() if r["protocol"] == "supervised"]
    metrics = record["metrics"]["test"]
    assert (metrics["n_listed"], metrics["n_scored"], len(record["classes"]["test"])) == (8, 8, 4)
    assert set(metrics["probe"]) == {"shuffled", "reversed", "single"}
    assert record["scoring"] == {
        "frames": 4,
        "clips": 1,
        "crops": 1,
        "sampling": "segments",
        "stride": 0,
        "short_side": 56,
        "average": "softmax",
    }
    assert record["cost"]["step_seconds"] > 0
    assert record["cost"]["gmacs_video"] > 0
    assert (home / record["name"] / "report" / "report.html").is_file()
    with np.load(home / record["name"] / "predictions.npz") as kept:
        assert kept["test/video"].shape[0] == 8
        assert kept["test/text"].shape[0] == 4


def test_zero_shot_scores_other_data_with_a_trained_run(home, small_data, capsys):
    (trained,) = [r["name"] for r in read_records(home).values() if r["protocol"] == "supervised"]
    arguments = ["--test", f"one={small_data}", "--test", f"two={small_data}", "--start", str(home / trained)]
    assert zero_shot.main([*arguments, "--out", str(home), *SMALL, "--set", "optim.epochs=0"]) == 0
    printed = capsys.readouterr().out
    (record,) = [r for r in read_records(home).values() if r["protocol"] == "zero_shot"]
    one, two = (record["metrics"][f"{name}/all"] for name in ("one", "two"))
    assert one == two
    assert one["n_listed"] == 24
    assert record["facts"]["train_clips"] == 0
    assert re.search(r"^method +one +two +trainable", printed, re.MULTILINE)
    assert record["start"]["name"] == trained
    assert any("may be among those scored" in note for note in record["facts"]["notes"])
    before, after = (load(home / name).method.adapter_state_dict() for name in (trained, record["name"]))
    assert all((before[key] == after[key]).all() for key in before), "nothing was trained"


def test_few_shot_with_two_seeds_is_one_row_with_a_deviation(home, small_data, capsys):
    arguments = ["--data", str(small_data), "--out", str(home), *SMALL, "--set", "protocol.shots=2", "--seeds", "1,2"]
    assert few_shot.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "±" in printed
    found = [r for r in read_records(home).values() if r["protocol"] == "few_shot"]
    assert {r["seed"] for r in found} == {1, 2}
    assert len({r["group"] for r in found}) == 1
    assert len({r["facts"]["split_digest"] for r in found}) == 2


def test_several_methods_are_one_command_and_one_table(small_data, tmp_path, capsys):
    arguments = ["--data", str(small_data), "--out", str(tmp_path), *SMALL[2:4], *SMALL[6:], "--seeds", "1,2"]
    assert few_shot.main([*arguments, "--method", "zeroshot,linear", "--set", "protocol.shots=2"]) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^(zeroshot|linear) .*±", printed, re.MULTILINE)
    assert rows == ["zeroshot", "linear"]
    assert len(read_records(tmp_path)) == 4
    assert len(re.findall("^report  .*report.html$", printed, re.MULTILINE)) == 4


def test_the_best_of_several_methods_is_registered_by_held_out_clips_alone(small_data, tmp_path, capsys):
    arguments = ["--data", str(small_data), "--out", str(tmp_path), *SMALL[2:4], *SMALL[6:], "--register", "mine"]
    arguments += ["--method", "zeroshot,linear", "--set", "protocol.shots=4"]
    with pytest.raises(UserError, match=r"nothing is held out .* 2 methods"):
        few_shot.main(arguments)
    assert few_shot.main([*arguments, "--set", "protocol.holdout=0.25"]) == 0
    assert re.search(r"^registering (zeroshot|linear), seed 1$", capsys.readouterr().out, re.MULTILINE)


def test_a_script_that_is_told_to_end_leaves_nothing_marked_as_running(small_data, tmp_path):
    command = [sys.executable, "-u", "-m", "pipelines.supervised", "--data", str(small_data), "--out", str(tmp_path)]
    command += [*SMALL, "--set", "optim.epochs=5000", "--mlflow", f"sqlite:///{tmp_path}/mlflow.db"]
    script = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in script.stdout:
        if "epoch 2/" in line:
            script.send_signal(signal.SIGTERM)
            break
    script.communicate(timeout=60)
    assert script.returncode == 143
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    assert (run.info.status, run.data.tags["outcome"]) == ("KILLED", "stopped by the user")


def test_one_run_that_fails_is_an_error_of_a_command_that_did_the_others(small_data, tmp_path, capsys):
    arguments = ["--data", str(small_data), "--out", str(tmp_path), *SMALL[2:4], *SMALL[6:], "--seeds", "1"]
    wild = ("--set", "optim.lr=1e30", "--set", "protocol.shots=2")
    assert few_shot.main([*arguments, "--method", "linear,zeroshot", *wild]) == 1
    done = capsys.readouterr()
    assert re.search("^zeroshot ", done.out, re.MULTILINE)
    assert re.search(r"^error: linear, seed 1: .*lower optim\.lr", done.err, re.MULTILINE)
    assert len(read_records(tmp_path)) == 1


def test_retrieval_on_own_captions(home, small_data, tmp_path, capsys):
    names = ("driving car", "flying kite", "lifting box", "picking flower")
    lines = [f"{name}/{i}.mp4,someone {name} for the {i}. time" for name in names for i in range(6)]
    (tmp_path / "captions.csv").write_text("\n".join(["video,caption", *lines, "lost.mp4,nothing to see"]) + "\n")
    arguments = ["--data", str(small_data), "--captions", str(tmp_path / "captions.csv"), "--out", str(home)]
    assert retrieval.main([*arguments, *SMALL, "--workers", "2"]) == 0
    assert "R@1" in capsys.readouterr().out
    (record,) = [r for r in read_records(home).values() if r["protocol"] == "retrieval"]
    metrics = record["metrics"]["test"]
    assert metrics["n_listed"] == metrics["n_captions"] > 4
    assert {"R@1", "R@5", "R@10", "MdR", "MnR"} <= set(metrics["t2v"]) & set(metrics["v2t"])
    assert record["history"][-1]["loss"] == pytest.approx(record["history"][-1]["contrastive"])


def test_all_of_them_make_one_report(home, tmp_path):
    assert report.main(["--runs", str(home), "--out", str(tmp_path / "report"), "--brief"]) == 0
    ledger = (tmp_path / "report" / "ledger.json").read_text()
    assert len(read_records(home)) == 5
    assert all(name in ledger for name in read_records(home))
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(f">{title}<" in page for title in ("Zero-shot", "Few-shot", "Supervised", "Retrieval"))
