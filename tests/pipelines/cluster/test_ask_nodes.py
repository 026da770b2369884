"""Nodes that do not see a file as this machine does."""

from __future__ import annotations

import pytest
import ray

from pipelines.cluster.ask_nodes import ask, blind_nodes
from pipelines.cluster.node_facts import looks
from tests.helpers.fake_cluster import FakeCluster, machine
from vlmodels.errors import UserError

CLUSTER = FakeCluster([machine("a", address="192.0.2.1"), machine("b", address="192.0.2.2")])


@pytest.fixture
def paths(tmp_path):
    for name in ("seen", "unlike"):
        (tmp_path / name).write_text(name)
    return [str(tmp_path / "seen"), str(tmp_path / "unlike")]


def test_nodes_that_do_not_see_a_file_are_named(paths):
    def answers(nodes, question, argument, _):
        here = question(argument)
        return dict(zip(nodes, (here, [*here[:-1], (3, b"own")]), strict=True))

    assert blind_nodes(paths, cluster=CLUSTER, ask=answers) == [[], ["192.0.2.2"]]


def test_a_node_that_does_not_answer_is_named(paths):
    def answers(nodes, *_):
        return {nodes[1]: "no answer within 9 s"}

    with pytest.raises(UserError, match=r"^192\.0\.2\.2: no answer within 9 s"):
        blind_nodes(paths, cluster=CLUSTER, ask=answers)


def test_one_node_is_not_asked(paths):
    gone = machine("c") | {"Alive": False}
    cluster = FakeCluster([machine("a"), gone])
    assert blind_nodes(paths, cluster=cluster, ask=lambda *_: pytest.fail("nothing to compare")) == [[], []]


def test_a_real_node_answers(ray_session, paths):
    assert blind_nodes(paths) == [[], []]
    (node,) = ray.nodes()
    assert ask([node["NodeID"]], looks, paths, 60) == {node["NodeID"]: looks(paths)}
    assert ask([], looks, paths, 60) == {}
