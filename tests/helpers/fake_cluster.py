"""A made-up cluster, and answers of its machines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.cluster.node_facts import Request
from pipelines.cluster.view import LauncherConfig, RayNode


@dataclass
class FakeCluster:
    """A cluster in the form of ``pipelines.cluster.view.ClusterView``; every part can be changed."""

    machines: list[RayNode] = field(default_factory=list)
    types: set[str] = field(default_factory=set)  # of an autoscaler
    launched_by: LauncherConfig | None = None
    unused: dict[str, float] = field(default_factory=dict)
    pending: bool = False
    beyond: bool = False

    def nodes(self):
        return [node for node in self.machines if node["Alive"]]

    def free(self):
        return self.unused

    def total(self):
        kinds = {kind for node in self.nodes() for kind in node["Resources"]}
        return {kind: sum(node["Resources"].get(kind, 0) for node in self.nodes()) for kind in kinds}

    def has_pending_group(self):
        return self.pending

    def node_types(self):
        return self.types

    def launcher(self):
        return self.launched_by

    def is_beyond_limits(self):
        return self.beyond


def machine(name: str = "a", *, address: str = "", **resources: float) -> RayNode:
    """A machine that is up."""
    return {"NodeID": name, "NodeManagerAddress": address or name, "Alive": True, "Resources": resources}


def request(**changes) -> Request:
    """A request for nothing but the versions, with changes."""
    nothing = {
        "data": [],
        "weights": "",
        "beside": [],
        "out": "",
        "shared": "",
        "sources": "",
        "cache": False,
        "gpus": False,
    }
    return nothing | changes


def write_index(folder: Path, digest="d", sizes=(3, 5), manifest="m") -> None:
    """Write what machines compare of ingested data."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [{"file": f"{n}.arrow", "bytes": n} for n in sizes]
    index = {"digest": digest, "manifest_sha256": manifest, "shards": shards}
    (folder / "index.json").write_text(json.dumps(index))
