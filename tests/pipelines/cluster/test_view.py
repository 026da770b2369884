"""What Ray shows of a cluster, as the checks read it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipelines.cluster.view import CONNECTED, LauncherConfig, MachineType

LAUNCHER = """
max_workers: 5
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, max_workers: 0}
  cpu_worker: {resources: {}}
  gpu_worker: {max_workers: 3}
"""


def test_machines_that_are_gone_are_left_out(monkeypatch):
    nodes = [{"NodeID": "a", "Alive": True}, {"NodeID": "b", "Alive": False}]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert CONNECTED.nodes() == nodes[:1]


def test_resources_are_those_of_ray(monkeypatch):
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    assert (CONNECTED.free(), CONNECTED.total()) == ({"CPU": 1.0}, {"CPU": 2.0})


@pytest.mark.parametrize(
    ("groups", "pending"),
    [
        ({}, False),
        ({"aa01": {"state": "PENDING"}}, True),
        ({"aa01": {"state": "CREATED"}}, False),
        ({"aa02": {"state": "PENDING"}}, False),  # of another job
    ],
)
def test_groups_of_this_job_alone_count(monkeypatch, groups, pending):
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01"))
    monkeypatch.setattr("ray.util.placement_group_table", lambda: groups)
    assert CONNECTED.has_pending_group() == pending


def test_the_launchers_configuration_lies_on_the_head(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CONNECTED.launcher() is None
    (tmp_path / "ray_bootstrap_config.yaml").write_text(LAUNCHER)
    types = (MachineType({"CPU": 0}, 0), MachineType({}, None), MachineType({}, 3))
    assert CONNECTED.launcher() == LauncherConfig(5, types)
    assert LauncherConfig.from_yaml("max_workers: 2") == LauncherConfig(2, ())


def test_a_ray_that_cannot_be_asked_for_its_limits_has_none(monkeypatch):
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="nowhere"))
    monkeypatch.setattr("ray._raylet.GcsClient", lambda _: SimpleNamespace())
    assert not CONNECTED.is_beyond_limits()
