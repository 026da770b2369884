"""Room for workers on made-up clusters, and whether an autoscaler is waited for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cluster import capacity
from pipelines.cluster.view import LauncherConfig
from pipelines.config.schema import ScaleConfig, TrainConfig
from tests.helpers.fake_cluster import FakeCluster, machine
from vlmodels.errors import UserError

FIXED = FakeCluster(types={"node_12ab"})
GROWING = FakeCluster(types={"head", "gpu_worker"})


def machines(*resources):
    return [machine(str(number), **dict(zip(("CPU", "GPU"), r, strict=False))) for number, r in enumerate(resources)]


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


def test_cores_of_two_machines_are_not_added():
    scale = ScaleConfig(workers=2, cpus_per_worker=2)
    with pytest.raises(UserError, match="2 workers need 4 CPUs but Ray has 4 CPUs on 2 machines, where 1 fit;"):
        capacity.check_room(scale, machines((3,), (1,)), cluster=FIXED)
    assert capacity.check_room(scale, machines((3,), (2,)), cluster=FIXED) == []


def test_fewer_workers_continue_where_that_is_allowed():
    scale = ScaleConfig(workers=4, min_workers=2)
    assert capacity.check_room(scale, machines((2,), (1,)), cluster=FIXED) == [
        "3 of 4 workers fit on the cluster (1 CPUs each, 2 machines): continuing with these (scale.min_workers=2)"
    ]
    with pytest.raises(UserError, match="2 workers need 2 CPUs but Ray has 1 CPUs"):
        capacity.check_room(scale, machines((1,)), cluster=FIXED)


def test_an_autoscaler_is_waited_for():
    (line,) = capacity.check_room(ScaleConfig(workers=4, gpu=True), machines((8, 1)), cluster=GROWING)
    assert line.startswith("1 of 4 workers fit on the cluster (1 CPUs and 1 GPUs each, 1 machines): waiting for 3 more")


def test_what_helps_where_no_gpu_is():
    with pytest.raises(
        UserError, match="Ray has 8 CPUs and 0 GPUs on 1 machines, where 0 fit; leave out --gpu, or add"
    ):
        capacity.check_room(ScaleConfig(workers=2, gpu=True), machines((8,)), cluster=FIXED)


LAUNCHER = """
max_workers: 5
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, max_workers: 0}
  gpu_worker: {resources: {CPU: 8, GPU: 2}, max_workers: 3}
  cpu_worker: {resources: {CPU: 16}, max_workers: 4}
"""
HEAD = machine("head", **{capacity.HEAD: 1.0})


def launched(text=LAUNCHER):
    """The cluster of ``ray up``, seen from its head."""
    return FakeCluster(types={"head"}, launched_by=LauncherConfig.from_yaml(text))


@pytest.mark.parametrize(
    ("scale", "nodes", "room"),
    [
        (ScaleConfig(gpu=True), [HEAD], 6),
        (ScaleConfig(gpu=True, cpus_per_worker=5), [HEAD], 3),
        (ScaleConfig(), [HEAD], 4 * 16 + 1 * 8),  # of five machines
        (ScaleConfig(), [machine("head", **{capacity.HEAD: 1.0, "CPU": 2}), machine("b", CPU=16)], 74),
    ],
)
def test_what_the_autoscaler_may_start(scale, nodes, room):
    assert capacity.most_places(scale, nodes, cluster=launched()) == room


@pytest.mark.parametrize(
    "cluster",
    [
        launched(LAUNCHER.replace("{CPU: 16}", "{}")),  # on premises: not known before a machine is up
        launched("max_workers: 2"),
        launched(LAUNCHER.replace("max_workers: 5", "")),
        GROWING,  # not on the head
    ],
)
def test_what_the_autoscaler_may_start_is_not_always_known(cluster):
    assert capacity.most_places(ScaleConfig(), [HEAD], cluster=cluster) is None


def test_more_workers_than_the_autoscaler_may_start():
    (line,) = capacity.check_room(ScaleConfig(workers=6, gpu=True), [HEAD], cluster=launched())
    assert line.endswith("waiting for 6 more, for which the autoscaler may start machines")
    too_many = r"7 workers \(1 CPUs and 1 GPUs each\) are more than the 6 for which the autoscaler may start machines;"
    for least, up in ((0, []), (2, []), (2, machines((8, 2)))):  # an elastic run asks for all of its workers as well
        scale = ScaleConfig(workers=7, min_workers=least, gpu=True)
        with pytest.raises(UserError, match=too_many):
            capacity.check_room(scale, [HEAD, *up], cluster=launched())


def test_an_autoscaler_is_known_by_its_types_and_its_limit():
    by_hand = FakeCluster(types={"node_12ab", "node_34cd"})
    assert not capacity.can_grow(2, cluster=by_hand)
    assert capacity.can_grow(2, cluster=GROWING)
    assert capacity.can_grow(2, cluster=launched("max_workers: 2"))
    assert not capacity.can_grow(3, cluster=launched("max_workers: 2"))  # the head and two workers are up


def test_a_ray_that_cannot_be_asked_for_an_autoscaler_has_none():
    class Unknown(FakeCluster):
        def node_types(self):
            raise AttributeError

    assert not capacity.can_grow(2, cluster=Unknown())


@pytest.mark.parametrize("beyond", [False, True])
def test_an_elastic_run_that_has_no_group_yet_waits_too(beyond):
    cluster = FakeCluster(machines=machines((1,)), beyond=beyond)
    config = TrainConfig(scale=ScaleConfig(workers=4, min_workers=2))
    line = capacity.waiting(config, cluster=cluster) or ""
    assert line.startswith("waiting for room for 2 workers (1 CPUs each, 0 of 1 free); ")
    assert ("limits are too low" in line) == beyond
    cluster.machines = machines((1,), (1,))
    assert capacity.waiting(config, cluster=cluster) is None
    cluster.pending = True
    assert "2 workers (1 CPUs each, 0 of 2 free)" in (capacity.waiting(config, cluster=cluster) or "")


@pytest.mark.parametrize(
    ("wanted", "gpus", "nodes", "place"),
    [("auto", 0, 1, ("cpu", 1)), ("auto", 4, 2, ("cuda", 4)), ("cpu", 4, 2, ("cpu", 2)), ("cuda", 1, 1, ("cuda", 1))],
)
def test_a_model_on_each_gpu_or_machine(wanted, gpus, nodes, place):
    assert capacity.place_model(wanted, gpus, nodes) == place


def test_a_gpu_that_ray_does_not_have():
    with pytest.raises(UserError, match="Ray has no GPU"):
        capacity.place_model("cuda", 0, 1)
