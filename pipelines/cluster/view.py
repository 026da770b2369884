"""A cluster as Ray shows it: its machines, what is free, and what its autoscaler may start."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict


class RayNode(TypedDict):
    """A machine in the form of ``ray.nodes()``; only what is read here."""

    NodeID: str
    NodeManagerAddress: str
    Alive: bool
    Resources: Mapping[str, float]


@dataclass(frozen=True)
class MachineType:
    """A type of machine that the cluster launcher knows; None where its configuration leaves the number out."""

    resources: Mapping[str, float]
    max_workers: int | None


@dataclass(frozen=True)
class LauncherConfig:
    """What ``ray up`` may start: machines of these types, ``max_workers`` of all together (None where left out)."""

    max_workers: int | None
    types: tuple[MachineType, ...]

    @classmethod
    def from_yaml(cls, text: str) -> LauncherConfig:
        """Read the launcher's configuration, as Ray completes it."""
        import yaml  # type: ignore[import-untyped]

        plain = yaml.safe_load(text)
        types = [
            MachineType(kind.get("resources") or {}, kind.get("max_workers"))
            for kind in (plain.get("available_node_types") or {}).values()
        ]
        return cls(plain.get("max_workers"), tuple(types))


class ClusterView(Protocol):
    """What the checks of a cluster ask of Ray; tests answer with a made-up cluster."""

    def nodes(self) -> list[RayNode]:
        """Return the machines that are up."""

    def free(self) -> Mapping[str, float]:
        """Return the resources that nothing holds now."""

    def total(self) -> Mapping[str, float]:
        """Return the resources of all machines together."""

    def has_pending_group(self) -> bool:
        """Return whether this job asked for a placement group that has no room yet."""

    def node_types(self) -> set[str]:
        """Return the names of the types of machines that are up or on their way."""

    def launcher(self) -> LauncherConfig | None:
        """Return the cluster launcher's configuration; None anywhere but on the head of a cluster of ``ray up``."""

    def is_beyond_limits(self) -> bool:
        """Return whether the autoscaler reports that it may not start what is asked for."""


@dataclass(frozen=True)
class RayView:
    """The cluster that this process is connected to."""

    def nodes(self) -> list[RayNode]:
        """Return the machines that are up."""
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def free(self) -> Mapping[str, float]:
        """Return the resources that nothing holds now."""
        import ray

        found: Mapping[str, float] = ray.available_resources()
        return found

    def total(self) -> Mapping[str, float]:
        """Return the resources of all machines together."""
        import ray

        found: Mapping[str, float] = ray.cluster_resources()
        return found

    def has_pending_group(self) -> bool:
        """Return whether this job asked for a placement group that has no room yet."""
        import ray
        from ray.util import placement_group_table

        job = ray.get_runtime_context().get_job_id()
        groups: Mapping[str, Mapping[str, Any]] = placement_group_table()
        return any(key.endswith(job) and group["state"] == "PENDING" for key, group in groups.items())

    def node_types(self) -> set[str]:
        """Return the names of the types of machines that are up or on their way, of either autoscaler's version."""
        import ray
        from ray.autoscaler.v2.sdk import get_cluster_status
        from ray.experimental.internal_kv import _internal_kv_get

        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        types = {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}
        first_version = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")
        report = first_version.get("autoscaler_report") or {}
        # This mapping lists machines that no other entry counts yet.
        types |= set((report.get("node_type_mapping") or {}).values())
        return types | set(report.get("active_nodes") or ()) | set(report.get("pending_launches") or ())

    def launcher(self) -> LauncherConfig | None:
        """Return what ``ray up`` left on the head of its cluster."""
        kept = Path("~/ray_bootstrap_config.yaml").expanduser()
        return LauncherConfig.from_yaml(kept.read_text()) if kept.is_file() else None

    def is_beyond_limits(self) -> bool:
        """Return whether the autoscaler (its second version) reports that it may not start what is asked for."""
        with contextlib.suppress(Exception):  # another version of Ray may not report it
            import ray
            from ray._raylet import GcsClient  # type: ignore[attr-defined]
            from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

            answer = GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status()
            state = GetClusterStatusReply.FromString(answer).autoscaling_state
            return bool(state.infeasible_gang_resource_requests or state.infeasible_cluster_resource_constraints)
        return False


CONNECTED = RayView()
"""The cluster that this process is connected to."""
