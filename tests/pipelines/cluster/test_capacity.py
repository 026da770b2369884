"""Room for workers on made-up clusters, and whether an autoscaler is waited for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cluster import capacity
from pipelines.config.schema import ScaleConfig, TrainConfig
from vlmodels.errors import UserError


def machines(*resources):
    return [{"Resources": dict(zip(("CPU", "GPU"), pair, strict=False))} for pair in resources]


@pytest.fixture
def fixed(monkeypatch):
    monkeypatch.setattr(capacity, "can_grow", lambda nodes: False)


@given(
    st.lists(st.tuples(st.integers(0, 16), st.integers(0, 8)), min_size=1, max_size=5),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    st.booleans(),
)
def test_workers_fit_machine_by_machine(resources, cpus, gpu):
    scale = ScaleConfig(cpus_per_worker=cpus, gpu=gpu)
    for cores, gpus in resources:
        least = 0
        while (least + 1) * cpus <= cores and (not gpu or least + 1 <= gpus):
            least += 1
        assert capacity.places(scale, {"CPU": cores, "GPU": gpus}) == least


def test_shares_of_a_gpu_add_up():
    assert capacity.places(ScaleConfig(gpu=True, gpus_per_worker=0.1, cpus_per_worker=0.1), {"CPU": 1, "GPU": 1}) == 10


def test_cores_of_two_machines_are_not_added(fixed):
    with pytest.raises(UserError, match="2 workers need 4 CPUs but Ray has 4 CPUs on 2 machines, where 1 fit;"):
        capacity.check_room(ScaleConfig(workers=2, cpus_per_worker=2), machines((3,), (1,)))
    assert capacity.check_room(ScaleConfig(workers=2, cpus_per_worker=2), machines((3,), (2,))) == []


def test_fewer_workers_go_on_where_that_is_allowed(fixed):
    scale = ScaleConfig(workers=4, min_workers=2)
    assert capacity.check_room(scale, machines((2,), (1,))) == [
        "3 of 4 workers fit on the cluster (1 CPUs each, 2 machines): going on with these (scale.min_workers=2)"
    ]
    with pytest.raises(UserError, match="2 workers need 2 CPUs but Ray has 1 CPUs"):
        capacity.check_room(scale, machines((1,)))


def test_an_autoscaler_is_waited_for(monkeypatch):
    monkeypatch.setattr(capacity, "can_grow", lambda nodes: True)
    (line,) = capacity.check_room(ScaleConfig(workers=4, gpu=True), machines((8, 1)))
    assert line.startswith("1 of 4 workers fit on the cluster (1 CPUs and 1 GPUs each, 1 machines): waiting for 3 more")


def test_what_helps_where_no_gpu_is(monkeypatch):
    monkeypatch.setattr(capacity, "can_grow", lambda nodes: False)
    with pytest.raises(
        UserError, match="Ray has 8 CPUs and 0 GPUs on 1 machines, where 0 fit; leave out --gpu, or add"
    ):
        capacity.check_room(ScaleConfig(workers=2, gpu=True), machines((8,)))


CLUSTER = """
max_workers: 5
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, max_workers: 0}
  gpu_worker: {resources: {CPU: 8, GPU: 2}, max_workers: 3}
  cpu_worker: {resources: {CPU: 16}, max_workers: 4}
"""


@pytest.fixture
def autoscaled(monkeypatch, tmp_path):
    """The head of a cluster that ``ray up`` made; returns its configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(capacity, "_node_types", lambda: {"head"})
    kept = tmp_path / "ray_bootstrap_config.yaml"
    kept.write_text(CLUSTER)
    return kept


def test_what_the_autoscaler_may_start(autoscaled):
    head = [{"Resources": {capacity.HEAD: 1.0}}]
    assert capacity.most_places(ScaleConfig(gpu=True), head) == 6
    assert capacity.most_places(ScaleConfig(gpu=True, cpus_per_worker=5), head) == 3
    assert capacity.most_places(ScaleConfig(), head) == 4 * 16 + 1 * 8  # of five machines
    assert capacity.most_places(ScaleConfig(), [{"Resources": {capacity.HEAD: 1.0, "CPU": 2}}, *machines((16,))]) == 74
    autoscaled.write_text(CLUSTER.replace("{CPU: 16}", "{}"))  # on premises: not known before a machine is up
    assert capacity.most_places(ScaleConfig(), head) is None
    autoscaled.unlink()  # not on the head
    assert capacity.most_places(ScaleConfig(), head) is None


def test_more_workers_than_the_autoscaler_may_start(autoscaled):
    head = [{"Resources": {capacity.HEAD: 1.0}}]
    (line,) = capacity.check_room(ScaleConfig(workers=6, gpu=True), head)
    assert line.endswith("waiting for 6 more, for which the autoscaler may start machines")
    too_many = r"7 workers \(1 CPUs and 1 GPUs each\) are more than the 6 for which the autoscaler may start machines;"
    for least, up in ((0, []), (2, []), (2, machines((8, 2)))):  # an elastic run asks for all of its workers as well
        with pytest.raises(UserError, match=too_many):
            capacity.check_room(ScaleConfig(workers=7, min_workers=least, gpu=True), [*head, *up])


def test_an_autoscaler_is_known_by_its_types_and_its_limit(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(capacity, "_node_types", lambda: {"node_12ab", "node_34cd"})  # started by hand
    assert not capacity.can_grow(2)
    monkeypatch.setattr(capacity, "_node_types", lambda: {"head", "gpu_worker"})
    assert capacity.can_grow(2)
    (tmp_path / "ray_bootstrap_config.yaml").write_text("max_workers: 2\n")
    assert capacity.can_grow(2)
    assert not capacity.can_grow(3)  # the head and two workers are up
    monkeypatch.setattr(capacity, "_node_types", lambda: 1 / 0)
    assert not capacity.can_grow(2)


@pytest.mark.parametrize("beyond", [False, True])
def test_an_elastic_run_that_has_no_group_yet_waits_too(beyond, monkeypatch):
    up = [{"Alive": True, "Resources": {"CPU": 1.0}}]
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01"))
    monkeypatch.setattr("ray.util.placement_group_table", dict)
    monkeypatch.setattr("ray.nodes", lambda: up)
    monkeypatch.setattr("ray.available_resources", dict)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(capacity, "_beyond_limits", lambda: beyond)
    config = TrainConfig(scale=ScaleConfig(workers=4, min_workers=2))
    line = capacity.waiting(config) or ""
    assert line.startswith("waiting for room for 2 workers (1 CPUs each, 0 of 1 free); ")
    assert ("limits are too low" in line) == beyond
    up *= 2
    assert capacity.waiting(config) is None
