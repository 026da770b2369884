"""Room for workers on a cluster: how many fit, whether machines may still come, and what workers wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from pipelines.cluster.view import CONNECTED, ClusterView, RayNode
from pipelines.config.schema import ScaleConfig, TrainConfig
from vlmodels.errors import UserError

HEAD = "node:__internal_head__"
"""A resource that Ray gives to the head alone."""


def places(scale: ScaleConfig, resources: Mapping[str, float]) -> int:
    """Return how many workers fit on a machine with these resources."""
    room = resources.get("CPU", 0) / scale.cpus_per_worker
    if scale.gpu:
        room = min(room, resources.get("GPU", 0) / scale.gpus_per_worker)
    return int(room + 1e-6)


def check_room(scale: ScaleConfig, nodes: Sequence[RayNode], *, cluster: ClusterView = CONNECTED) -> list[str]:
    """Compare the workers wanted with those that fit on ``nodes`` when nothing else runs.

    Returns:
        A line about workers that have to wait for machines, if there are any.

    Raises:
        UserError: too few fit, and no autoscaler can add machines, or not enough of them.
    """
    fit = sum(places(scale, node["Resources"]) for node in nodes)
    least = scale.min_workers or scale.workers
    if fit >= scale.workers:
        return []
    grows = can_grow(len(nodes), cluster=cluster)
    if grows:
        _check_limit(scale, most_places(scale, nodes, cluster=cluster))
    each = resources_of_worker(scale)
    most = f"{fit} of {scale.workers} workers fit on the cluster ({_amounts(each)} each, {len(nodes)} machines)"
    if fit >= least:
        return [f"{most}: continuing with these (scale.min_workers={scale.min_workers})"]
    if grows:
        return [f"{most}: waiting for {scale.workers - fit} more, for which the autoscaler may start machines"]
    wanted = {kind: least * amount for kind, amount in each.items()}
    have = {kind: sum(node["Resources"].get(kind, 0) for node in nodes) for kind in each}
    raise UserError(
        f"{least} workers need {_amounts(wanted)} but Ray has {_amounts(have)} on {len(nodes)} machines, where {fit} "
        f"fit; {_remedy(scale, have)}, or add machines"
    )


def _check_limit(scale: ScaleConfig, limit: int | None) -> None:
    # Asked for more, the autoscaler starts nothing at all: docs/RAY.md#asked-for-too-much
    if limit is not None and limit < scale.workers:
        raise UserError(
            f"{scale.workers} workers ({_amounts(resources_of_worker(scale))} each) are more than the {limit} for "
            "which the autoscaler may start machines; set scale.workers or scale.cpus_per_worker lower, or raise "
            "max_workers in the cluster's configuration and run 'ray up' again"
        )


def resources_of_worker(scale: ScaleConfig) -> dict[str, float]:
    """Return what one worker takes of a cluster."""
    resources = {"CPU": scale.cpus_per_worker}
    if scale.gpu:
        resources["GPU"] = scale.gpus_per_worker
    return resources


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}s" for kind, amount in resources.items())


def _remedy(scale: ScaleConfig, have: Mapping[str, float]) -> str:
    if scale.gpu and not have["GPU"]:
        return "leave out --gpu"
    return "set scale.workers or scale.cpus_per_worker lower, set scale.min_workers"


def can_grow(nodes: int, *, cluster: ClusterView = CONNECTED) -> bool:
    """Return whether an autoscaler may add machines to the ``nodes`` that are up; False where it cannot be asked.

    An autoscaler is at work where machines have a type of its configuration; its limit is known on the head of a
    cluster that ``ray up`` made (docs/RAY.md#an-autoscaler-is-known-by-types).
    """
    with contextlib.suppress(Exception):  # another version of Ray may answer otherwise, which must not end a run
        if all(name.startswith("node_") for name in cluster.node_types()):
            return False
        launcher = cluster.launcher()
        limit = launcher.max_workers if launcher else None
        return limit is None or nodes - 1 < limit
    return False


def most_places(scale: ScaleConfig, nodes: Sequence[RayNode], *, cluster: ClusterView = CONNECTED) -> int | None:
    """Return how many workers fit once the autoscaler has started all machines that it may; None if unknown.

    It is known on the head of a cluster that ``ray up`` made, whose configuration lists the resources of every type of
    machine. Of the ``nodes`` that are up only the head is added: the others are of those types.
    """
    with contextlib.suppress(Exception):  # a configuration of another version of Ray
        launcher = cluster.launcher()
        if launcher is None or launcher.max_workers is None or not launcher.types:
            return None
        types = [kind for kind in launcher.types if kind.max_workers != 0]
        if not all("CPU" in kind.resources and kind.max_workers is not None for kind in types):
            return None
        room = sum(places(scale, node["Resources"]) for node in nodes if HEAD in node["Resources"])
        left = launcher.max_workers
        for each, most in sorted(((places(scale, k.resources), k.max_workers or 0) for k in types), reverse=True):
            room += each * min(most, left)
            left -= min(most, left)
        return room
    return None


def waiting(config: TrainConfig, *, cluster: ClusterView = CONNECTED) -> str | None:
    """Return one line about what workers of this job wait for; None if none waits for room."""
    scale = config.scale
    # An elastic run asks for no placement group before its least workers have room: docs/RAY.md#elastic-runs
    least_fit = sum(places(scale, node["Resources"]) for node in cluster.nodes()) >= scale.min_workers
    if least_fit and not cluster.has_pending_group():
        return None
    free, total = cluster.free(), cluster.total()
    parts = [
        f"{amount:g} {kind}s each, {free.get(kind, 0):g} of {total.get(kind, 0):g} free"
        for kind, amount in resources_of_worker(scale).items()
    ]
    if cluster.is_beyond_limits():
        why = (
            "the autoscaler's limits are too low for all that is asked for: ask for fewer workers, or raise max_workers"
        )
    else:
        why = "'ray status' shows who holds the rest"
    return f"waiting for room for {scale.min_workers or scale.workers} workers ({'; '.join(parts)}); {why}"


def place_model(wanted: str, gpus: int, nodes: int) -> tuple[str, int]:
    """Return the device of the model, and how many actors have one: one on each GPU, or else on each machine.

    Raises:
        UserError: a GPU is wanted, and Ray has none.
    """
    if wanted.startswith("cuda") and not gpus:
        raise UserError(f"--device {wanted}: Ray has no GPU (see 'ray status'); choose --device cpu")
    if wanted != "cpu" and gpus:
        return "cuda", gpus
    return "cpu", nodes
