"""Room for workers on a cluster: how many fit, whether machines may still come, what is waited for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.schema import ScaleConfig, TrainConfig
from vlmodels.errors import UserError

HEAD = "node:__internal_head__"
"""A resource that Ray gives to the head alone."""


def places(scale: ScaleConfig, resources: Mapping[str, float]) -> int:
    """How many workers fit on a machine of these resources."""
    room = resources.get("CPU", 0) / scale.cpus_per_worker
    if scale.gpu:
        room = min(room, resources.get("GPU", 0) / scale.gpus_per_worker)
    return int(room + 1e-6)


def check_room(scale: ScaleConfig, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Compare the workers wanted with what fits on ``nodes`` (as ``ray.nodes()`` tells) when nothing else runs.

    Returns a line about workers that have to wait for machines.

    Raises:
        UserError: too few fit, and no autoscaler can add machines, or not enough of them.
    """
    fit = sum(places(scale, node["Resources"]) for node in nodes)
    least = scale.min_workers or scale.workers
    if fit >= scale.workers:
        return []
    each = _each(scale)
    most = f"{fit} of {scale.workers} workers fit on the cluster ({_amounts(each)} each, {len(nodes)} machines)"
    grows = can_grow(len(nodes))
    if grows:
        limit = most_places(scale, nodes)
        if limit is not None and limit < scale.workers:  # asked for more, Ray's autoscaler starts nothing at all
            raise UserError(
                f"{scale.workers} workers ({_amounts(each)} each) are more than the {limit} for which the autoscaler "
                "may start machines; set scale.workers or scale.cpus_per_worker lower, or raise max_workers in the "
                "cluster's configuration and run 'ray up' again"
            )
    if fit >= least:
        return [f"{most}: going on with these (scale.min_workers={scale.min_workers})"]
    if grows:
        return [f"{most}: waiting for {scale.workers - fit} more, for which the autoscaler may start machines"]
    wanted = {kind: least * amount for kind, amount in each.items()}
    have = {kind: sum(node["Resources"].get(kind, 0) for node in nodes) for kind in each}
    raise UserError(
        f"{least} workers need {_amounts(wanted)} but Ray has {_amounts(have)} on {len(nodes)} machines, where {fit} "
        f"fit; {_remedy(scale, have)}, or add machines"
    )


def _remedy(scale: ScaleConfig, have: Mapping[str, float]) -> str:
    if scale.gpu and not have["GPU"]:
        return "leave out --gpu"
    return "set scale.workers or scale.cpus_per_worker lower, set scale.min_workers"


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}s" for kind, amount in resources.items())


def _each(scale: ScaleConfig) -> dict[str, float]:
    return {"CPU": scale.cpus_per_worker} | ({"GPU": scale.gpus_per_worker} if scale.gpu else {})


def can_grow(nodes: int) -> bool:
    """Whether an autoscaler may add machines to the ``nodes`` that are up; False where none answers.

    Ray keeps no public record of an autoscaler's limits: one is at work where machines have a type of its
    configuration (one started by hand is a type of its own, ``node_ID``); on the head of a cluster that ``ray up``
    made, its configuration tells the limit.
    """
    with contextlib.suppress(Exception):  # what a version of Ray does not tell is no reason to end a run
        if all(name.startswith("node_") for name in _node_types()):
            return False
        return bool(nodes - 1 < _configuration().get("max_workers", nodes))
    return False


def most_places(scale: ScaleConfig, nodes: Sequence[Mapping[str, Any]]) -> int | None:
    """How many workers fit when the autoscaler has started all machines that it may; None where that is not known.

    Known on the head of a cluster that ``ray up`` made, where its configuration tells what every type of machine has.
    Of the ``nodes`` that are up (as ``ray.nodes()`` tells) the head alone is added: the others are of those types.
    """
    with contextlib.suppress(Exception):
        kept = _configuration()
        kinds = [kind for kind in kept["available_node_types"].values() if kind["max_workers"]]
        if not all("CPU" in kind["resources"] for kind in kinds):
            return None
        room = sum(places(scale, node["Resources"]) for node in nodes if HEAD in node["Resources"])
        left = kept["max_workers"]
        for each, most in sorted(((places(scale, k["resources"]), k["max_workers"]) for k in kinds), reverse=True):
            room += each * min(most, left)
            left -= min(most, left)
        return room
    return None


def _configuration() -> dict[str, Any]:
    """What ``ray up`` left on the head; empty elsewhere."""
    import yaml  # type: ignore[import-untyped]

    kept = Path("~/ray_bootstrap_config.yaml").expanduser()
    return dict(yaml.safe_load(kept.read_text())) if kept.is_file() else {}


def _node_types() -> set[str]:
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.experimental.internal_kv import _internal_kv_get

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    types = {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}
    first = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")  # of the autoscaler's first version
    report = first.get("autoscaler_report") or {}
    types |= set((report.get("node_type_mapping") or {}).values())  # it lists machines that no other entry counts yet
    return types | set(report.get("active_nodes") or ()) | set(report.get("pending_launches") or ())


def waiting(config: TrainConfig) -> str | None:
    """One line about what workers of this job wait for; None if none waits for room."""
    import ray
    from ray.util import placement_group_table

    job, scale = ray.get_runtime_context().get_job_id(), config.scale
    groups = placement_group_table()
    if not any(key.endswith(job) and group["state"] == "PENDING" for key, group in groups.items()):
        # An elastic run asks for no group before its least workers have room.
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if sum(places(scale, node["Resources"]) for node in nodes) >= scale.min_workers:
            return None
    free, have, each = ray.available_resources(), ray.cluster_resources(), _each(scale)
    parts = [f"{n:g} {kind}s each, {free.get(kind, 0):g} of {have.get(kind, 0):g} free" for kind, n in each.items()]
    why = (
        "the autoscaler's limits are too low for all that is asked for: ask for fewer workers, or raise max_workers"
        if _beyond_limits()
        else "'ray status' shows who holds the rest"
    )
    return f"waiting for room for {scale.min_workers or scale.workers} workers ({'; '.join(parts)}); {why}"


def _beyond_limits() -> bool:
    """Whether the autoscaler (of the second version) says that it may not start what is asked for."""
    with contextlib.suppress(Exception):
        import ray
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

        answer = GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status()
        state = GetClusterStatusReply.FromString(answer).autoscaling_state
        return bool(state.infeasible_gang_resource_requests or state.infeasible_cluster_resource_constraints)
    return False
