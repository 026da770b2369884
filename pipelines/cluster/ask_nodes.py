"""Questions to the machines of a cluster that each must answer by itself, as whether they see the same files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from pipelines.cluster import node_facts
from pipelines.cluster.view import CONNECTED, ClusterView
from vlmodels.errors import UserError

WAIT_S = 120.0
"""A node may first have to start a process."""
Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


class Ask(Protocol):
    """How nodes are asked; tests answer for them."""

    def __call__(
        self, nodes: Sequence[str], question: Callable[[Argument], Answer], argument: Argument, timeout_s: float
    ) -> Mapping[str, Answer | str]:
        """Return each node's answer, as ``ask`` does."""


def ask(
    nodes: Sequence[str],
    question: Callable[[Argument], Answer],
    argument: Argument,
    timeout_s: float,
    *,
    cluster: ClusterView = CONNECTED,
) -> dict[str, Answer | str]:
    """Ask each of Ray's nodes one question, by a task that needs no CPU and none of the project's code.

    Args:
        nodes: their ids.
        question: a function of ``node_facts``, which travels by value.
        argument: of the function, the same for all.
        timeout_s: seconds within which all must answer.
        cluster: tells which nodes are up in the end.

    Returns:
        Each node's answer, or why there is none; a node that has left by then is left out.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    ray.cloudpickle.register_pickle_by_value(node_facts)
    try:
        task = ray.remote(num_cpus=0, num_gpus=0, max_retries=0)(question)
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            asked[task.options(scheduling_strategy=there).remote(argument)] = node
    finally:
        ray.cloudpickle.unregister_pickle_by_value(node_facts)
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s) if asked else ([], [])
    answers: dict[str, Answer | str] = {}
    for reference in late:
        ray.cancel(reference, force=True)
        answers[asked[reference]] = f"no answer within {timeout_s:g} s; see that machine's load and 'ray status'"
    for reference in done:
        try:
            answers[asked[reference]] = ray.get(reference)
        except RayError as error:
            last_line = str(error).strip().rpartition("\n")[2]
            answers[asked[reference]] = f"no task can run there: {last_line[:300]}"
    alive = {node["NodeID"] for node in cluster.nodes()}
    return {node: answer for node, answer in answers.items() if node in alive}


def blind_nodes(paths: Sequence[str], *, cluster: ClusterView = CONNECTED, ask: Ask = ask) -> list[list[str]]:
    """Return, for each file, the addresses of Ray's nodes that do not see it as this machine does.

    A cluster of one node is not asked.

    Raises:
        UserError: a node does not answer.
    """
    blind: list[list[str]] = [[] for _ in paths]
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in cluster.nodes()}
    if len(addresses) < 2:
        return blind
    own = node_facts.looks(paths)
    for node, seen in ask(list(addresses), node_facts.looks, paths, WAIT_S).items():
        if isinstance(seen, str):
            raise UserError(f"{addresses[node]}: {seen}")
        for missed, mine, its in zip(blind, own, seen, strict=True):
            if mine != its:
                missed.append(addresses[node])
    return blind
