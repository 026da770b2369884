"""Sweeps of sleeping functions on Ray Tune."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

from tune_spaces.domains import Integers
from tune_spaces.search import Objective, PastTrial, Search
from tune_spaces.tuner import build_tuner

TOP1 = Objective(metric="select.top1")
COST = Objective(metric="cost.trainable", mode="min")


def sleeper(log, seconds=0.2):
    """Return a function that reports 3 epochs with the score ``a.n`` to Ray Tune, and fails in the way ``how``.

    Its processes cannot import this file, so it imports what it needs.
    """

    def trial(config):
        import json
        import os
        import time

        import ray
        from ray import tune

        def note(what):
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps([what, os.getpid(), time.time(), config]) + "\n")

        setting = config["setting"]
        value, how = float(setting["a.n"]), setting.get("how")
        note("start")
        try:
            for epoch in (1, 2, 3):
                time.sleep(seconds)
                if how == "raise":
                    raise RuntimeError("on purpose")
                if how == "killed" and not log.with_name("killed").exists():
                    log.with_name("killed").touch()
                    os.kill(os.getpid(), 9)
                tune.report({"epoch": epoch, "select.top1": value})
            free = ray.available_resources().get("CPU", 0.0)
            final = {} if how == "invalid" else {"select.top1": value, "cost.trainable": -value, "free": free}
            tune.report({"epoch": 3, "status": how if how == "invalid" else "finished", **final})
        finally:
            if how == "slow":
                time.sleep(2.5)
            note("end")

    return trial


def recorder():
    """Return a callback that records how trials end."""
    from ray.tune import Callback

    class Recorder(Callback):
        ended: list

        def __init__(self):
            self.ended = []

        def on_trial_complete(self, *, trial, **_):
            self.ended.append((trial.config["setting"], trial.last_result))

        def on_trial_error(self, *, trial, **_):
            message = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]
            self.ended.append((trial.config["setting"], {"error": message}))

    return Recorder()


def notes(log):
    """Read the notes of the trials: [start or end, process id, time in s, configuration]."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def scalars(folder):
    """Read the TensorBoard events of a folder: values by tag and step, and the raw hyperparameters."""
    from tensorboardX.proto.event_pb2 import Event

    found, hparams = {}, set()
    (path,) = folder.glob("events.out.tfevents.*")
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                hparams.add(bytes(value.metadata.plugin_data.content))
            else:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found, b"".join(hparams)


def assert_one_trial_at_a_time_per_process(noted):
    running = set()
    for what, pid, *_ in noted:
        if what == "start":
            assert pid not in running
            running.add(pid)
        else:
            running.discard(pid)


def waits_between_trials(noted):
    """Return the seconds between the end of a trial and the start of the next in the same process."""
    by_process = {}
    for note in noted:
        by_process.setdefault(note[1], []).append(note)
    return [
        later[2] - earlier[2]
        for found in by_process.values()
        for earlier, later in itertools.pairwise(found)
        if (earlier[0], later[0]) == ("end", "start")
    ]


def test_listed_trials_on_ray(ray_session, tmp_path, capfd):
    """Processes are reused, poor trials stop early, broken ones do not stop the sweep, and nothing is printed."""
    kinds = [("9", ""), ("8", ""), ("1", "slow"), ("7", "raise"), ("6", "killed"), ("5", "invalid"), ("10", "")]
    kinds += [(str(number), "") for number in (11, 12, 13)] + [("2", "slow")]
    listed = [{"setting": {"a.n": number, "how": how}, "seed": 1} for number, how in kinds]
    search = Search(scheduler="asha", objectives=(TOP1,), epochs=3, reduction=2)
    log, recorded = tmp_path / "log", recorder()
    log.touch()
    tuner = build_tuner(
        sleeper(log),
        search,
        space={},
        settings=listed,
        past_trials=[PastTrial(setting={}, status="finished", by_epoch={1: 4.0, 2: 4.0, 3: 4.0})] * 3,
        resources={"CPU": 1},
        concurrent=2,
        storage=str(tmp_path),
        name="tune",
        max_failures=1,
        callbacks=[recorded],
    )
    capfd.readouterr()
    tuner.fit()
    written = "".join(capfd.readouterr())
    assert not [line for line in written.splitlines() if "(raylet)" not in line and line.strip()]

    ended = {setting["a.n"]: result for setting, result in recorded.ended}
    assert len(recorded.ended) == len(listed) == len(ended)
    assert {n for n, result in ended.items() if result.get("status") == "finished"} >= {"10", "11", "12", "13"}
    assert ended["5"]["status"] == "invalid"
    assert "on purpose" in ended["7"]["error"]
    for number in ("1", "2"):  # worse than the others from the first epoch
        assert ended[number]["epoch"] == 1
        assert "status" not in ended[number]

    noted = notes(log)
    starts = {n: [note for note in noted if note[0] == "start" and note[3]["setting"]["a.n"] == n] for n in ended}
    assert {n: len(found) for n, found in starts.items() if len(found) != 1} == {"7": 2, "6": 2}
    assert {note[3]["setting"]["a.n"] for note in noted if note[0] == "end"} == set(ended)  # all cleaned up
    assert_one_trial_at_a_time_per_process(noted)
    waits = waits_between_trials(noted)
    assert len(waits) >= 4  # a process runs several trials
    assert sorted(waits)[len(waits) // 2] < 1

    (folder,) = (tmp_path / "tune").glob("n=13,how=-*")
    found, hparams = scalars(folder)
    assert found["ray/tune/select.top1"] == {1: 13.0, 2: 13.0, 3: 13.0}
    assert b"a.n" in hparams
    rows = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 3]


def test_tpe_on_ray_leaves_all_cpus_to_the_workers_of_trials(ray_session, tmp_path):
    log, recorded = tmp_path / "log", recorder()
    search = Search(kind="tpe", samples=6, objectives=(TOP1, COST), epochs=3)
    past_trials = [
        PastTrial(setting={"a.n": "1"}, status="finished", metrics={"select.top1": 1.0, "cost.trainable": -1.0})
    ]
    tuner = build_tuner(
        sleeper(log, 0.05),
        search,
        space={"a.n": Integers(1, 4)},
        settings=[{"setting": {"a.n": "3"}}],
        past_trials=past_trials,
        resources={"CPU": 0},
        concurrent=2,
        storage=str(tmp_path),
        name="tune",
        max_failures=0,
        callbacks=[recorded],
    )
    tuner.fit()
    begun = [note[3] for note in notes(log) if note[0] == "start"]
    assert {"setting": {"a.n": "3"}} in begun[:2]  # two processes start at the same time
    tried = sorted(setting["a.n"] for setting, _ in recorded.ended)
    assert tried == ["2", "3", "4"]  # the whole space, as an earlier session tried 1
    assert {result["free"] for _, result in recorded.ended} == {2.0}
