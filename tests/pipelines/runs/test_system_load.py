"""Samples of a machine's load come while a run works, under MLflow's names, and never fail it."""

from __future__ import annotations

import threading

import pytest

from pipelines.runs.progress import LoadSampled
from pipelines.runs.system_load import LoadSampler, gpu_load, metric_names
from pipelines.runs.tracking import LoadLog


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n")
    lines = "a\nb\n  lo: 9 0 0 0 0 0 0 0 9 0\neth0: 5000000 0 0 0 0 0 0 0 3000000 0\n"
    (tmp_path / "net" / "dev").write_text(lines)
    return tmp_path


def samples(proc, change=lambda: None):
    """Return the first two samples."""
    found, two = [], threading.Event()

    def send(message):
        found.append(message)
        if len(found) == 1:
            change()
        else:
            two.set()

    with LoadSampler("host", send, 0.02, proc=proc):
        two.wait(20)
    return found[:2]


def test_a_sample_says_how_busy_the_machine_is(proc):
    def work():
        (proc / "stat").write_text("cpu  400 0 100 800 100 0 0 0 0 0\n")

    first, second = samples(proc, work)
    assert isinstance(first, LoadSampled)
    assert first.load["system_memory_usage_percentage"] == 75.0
    assert first.load["network_receive_megabytes"] == 5.0
    assert first.load["disk_available_megabytes"] > 0
    assert second.load["cpu_utilization_percentage"] == pytest.approx(75.0)


@pytest.mark.parametrize("name", ["stat", "meminfo", "net/dev"])
def test_what_cannot_be_read_is_left_out(proc, name):
    _, second = samples(proc, lambda: (proc / name).write_text("nonsense\n1\n2\n"))
    assert "disk_usage_percentage" in second.load
    assert len(second.load) < 9


def test_there_are_none_where_none_are_wanted_or_nothing_is_known(tmp_path, proc):
    found = []
    for every, folder in ((0, proc), (0.01, tmp_path / "no proc")):
        with LoadSampler("host", found.append, every, proc=folder):
            threading.Event().wait(0.1)
    assert not found


def test_gpus_are_read_from_nvidia_smi_s_table():
    table = "0, 97, 1000, 4000, 350.5, 700.00\n1, [N/A], 0, 4000, [N/A], [N/A]\ngarbage\n"
    load = gpu_load(table)
    assert load["gpu_0_utilization_percentage"] == 97
    assert load["gpu_0_memory_usage_percentage"] == 25
    assert load["gpu_0_power_usage_percentage"] == pytest.approx(50.07, abs=0.01)
    assert load["gpu_1_memory_usage_megabytes"] == 0
    assert "gpu_1_utilization_percentage" not in load


def test_machines_are_told_apart_where_there_are_several():
    assert metric_names({"a": 1.0}, "10.0.0.1", several=False) == {"system/a": 1.0}
    assert metric_names({"a": 1.0}, "10.0.0.1", several=True) == {"system/10.0.0.1/a": 1.0}


def test_samples_are_left_out_while_mlflow_is_away():
    class Tracker:
        away, steps = True, []

        def system(self, metrics, step):
            self.steps.append(step)
            if self.away:
                raise ConnectionError

    tracker, now = Tracker(), [0.0]
    log = LoadLog(tracker, several=True, clock=lambda: now[0])
    log(LoadSampled("a", {"x": 1.0}))
    log(LoadSampled("a", {"x": 1.0}))
    assert tracker.steps == [0]  # the second was not even tried
    tracker.away, now[0] = False, 61.0
    log(LoadSampled("a", {"x": 1.0}))
    log(LoadSampled("b", {"x": 1.0}))
    assert tracker.steps == [0, 1, 0]
