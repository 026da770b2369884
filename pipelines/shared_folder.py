"""Whether the machines of a cluster see the same files under the same path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmodels.errors import UserError

FIRST_BYTES = 4096
WAIT_S = 120.0
"""A node may first have to start a process."""
Look = tuple[int, bytes]


def look(path: str) -> Look | None:
    """What tells a file from others, as this machine sees it: its size and first bytes; None if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return Path(path).stat().st_size, file.read(FIRST_BYTES)
    except OSError:
        return None


def blind_nodes(paths: Sequence[str]) -> list[list[str]]:
    """Return, for each file, the addresses of Ray's nodes that do not see it as this machine does.

    Asks every node, by a task that needs no CPU; nothing is asked where there is one node.

    Raises:
        UserError: a node does not answer.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return [[] for _ in paths]
    task = ray.remote(num_cpus=0)(_look_all)
    blind: list[list[str]] = [[] for _ in paths]
    asked = [
        (
            node["NodeManagerAddress"],
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(paths),
        )
        for node in nodes
    ]
    own = _look_all(paths)
    for address, answer in asked:
        try:
            seen = ray.get(answer, timeout=WAIT_S)
        except RayError as error:  # a timeout is one
            raise UserError(f"the node {address} does not answer: {str(error).strip().splitlines()[-1]}") from error
        for missed, mine, its in zip(blind, own, seen, strict=True):
            if mine != its:
                missed.append(address)
    return blind


def _look_all(paths: Sequence[str]) -> list[Look | None]:
    return [look(path) for path in paths]
