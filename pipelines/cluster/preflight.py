"""A cluster before workers start: what would fail on some machine is found at once, and told by machine."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.cluster import node_facts
from pipelines.cluster.ask_nodes import ask
from pipelines.cluster.capacity import check_room, places
from pipelines.config.schema import ScaleConfig, TrainConfig
from pipelines.storage.place import SCRATCH, is_uri, shown
from vlmodels.errors import UserError, refuse

_COPY = "copy the ingested folder of this machine there, or put it in a store or shared folder"
Facts = Mapping[str, Any]


def check_cluster(config: TrainConfig, *, data: Sequence[str], timeout_s: float = 120) -> list[str]:
    """Ask every machine that could hold a worker whether one can run there; to be called once Ray is connected.

    Versions, sources, data, weight file, folder of runs, cache and GPUs are compared with this process' own. A cluster
    of one machine, this one, is asked for room and GPUs alone. Workers on machines that join later compare versions
    and sources themselves (``node_facts.differences``).

    Args:
        config: of the run, with absolute paths.
        data: folders or URIs of all ingested data that it reads.
        timeout_s: seconds within which a machine must answer.

    Returns:
        What a reader should know, one line each.

    Raises:
        UserError: naming every machine that could not run a worker, with the remedy; data that this machine itself
            cannot read; or too few workers fit.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    notes = check_room(config.scale, nodes)
    if len(nodes) == 1:
        _check_own_gpus(config.scale, nodes[0])
        return notes
    able = {node["NodeID"]: node for node in nodes if places(config.scale, node["Resources"])}
    request = _request(config, data)
    here = node_facts.facts({**request, "out": "", "cache": False, "gpus": False})
    refuse(
        [
            f"this machine cannot read {shown(where)}: {found['error']}; mend that and run the same command again"
            for where, found in here["data"].items()
            if "error" in found
        ]
    )
    share = 1 / len(able) if config.data.parts > 1 and able else 1.0
    with _marker(config.out) as shared:
        asked = {**request, "shared": shared, "sources": here["sources"]}
        there = ask(list(able), node_facts.facts, asked, timeout_s)
        here["shared"] = node_facts.look(shared) if shared else None
    if lost := able.keys() - there.keys():
        notes = check_room(config.scale, [node for node in ray.nodes() if node["Alive"]])
        notes += _told(able, {node_id: ["left the cluster while it was checked"] for node_id in lost})
    problems, remarks = {}, {}
    for node_id, found in there.items():
        if isinstance(found, str):
            problems[node_id] = [found]
            continue
        promised = int(able[node_id]["Resources"].get("GPU", 0))
        problems[node_id], remarks[node_id] = compare(here, found, promised=promised, share=share)
    refuse(_told(able, problems))
    return notes + _told(able, remarks)


def _request(config: TrainConfig, data: Sequence[str]) -> dict[str, Any]:
    weights = config.backbone.pretrained or ""
    return {
        "data": list(data),
        "weights": weights if Path(weights).is_file() else "",
        "out": config.out if is_uri(config.out) else str(_local(config.out)),
        "shared": "",
        "sources": "",
        "cache": any(is_uri(where) for where in data),
        "gpus": config.scale.gpu,
    }


def _local(out: str) -> Path:
    return Path(out.removeprefix("file://")).resolve()


def _check_own_gpus(scale: ScaleConfig, node: Mapping[str, Any]) -> None:
    if not scale.gpu or os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # hidden from this process alone
        return
    import torch

    promised = int(node["Resources"].get("GPU", 0))
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen < promised:
        raise UserError(f"{node['NodeManagerAddress']}: {_no_gpu(promised, {'seen': seen, 'said': ''})}")


def _no_gpu(promised: int, found: Mapping[str, Any]) -> str:
    said = f" ({found['said']})" if found["said"] else ""
    return (
        f"Ray promises {promised} GPUs there, PyTorch sees {found['seen']}{said}: mend its driver, install a torch "
        f"that has CUDA, or start Ray there with --num-gpus={found['seen']}"
    )


@contextlib.contextmanager
def _marker(out: str) -> Iterator[str]:
    """A file in a local ``out``, by which other machines know that it is the same folder; "" for a store."""
    if is_uri(out):
        yield ""
        return
    path = _local(out) / SCRATCH / f".shared-{secrets.token_hex(8)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_text(secrets.token_hex(16))
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def compare(here: Facts, there: Facts, *, promised: int = 0, share: float = 1.0) -> tuple[list[str], list[str]]:
    """Compare a machine's facts (``node_facts.facts``) with this process'.

    Args:
        here: facts of this process.
        there: facts of the other machine.
        promised: GPUs that Ray says are there.
        share: part of the shards that a machine may have to keep.

    Returns:
        What forbids a worker there, each with its remedy; and what is merely worth a note.
    """
    problems, notes = node_facts.compare_versions(here, there)
    for where, found in there["data"].items():
        name, own = shown(where), here["data"][where]
        if "error" in found:
            problems.append(f"{name} cannot be read there: {found['error']}; put the data in a store or shared folder")
        elif found and found["digest"] != own["digest"]:
            problems.append(f"{name} holds other data there; {_COPY}")
        elif found and found["layout"] != own["layout"]:
            problems.append(f"{name} holds the same clips there, but ingested apart, in other shards; {_COPY}")
    weights = there["weights"]
    if "error" in weights:
        problems.append(f"the weight file cannot be read there ({weights['error']}); copy it to the same path")
    elif weights != here["weights"]:
        problems.append(
            f"the weight file is another one there ({weights['bytes']} bytes, sha256 {weights['sha256'][:12]}); copy it"
        )
    if there["shared"] != here["shared"]:
        problems.append(
            "runs would be kept on each machine by itself; --out must be a shared folder or a store (s3://...)"
        )
    elif there["out"]:
        problems.append(f"runs cannot be written from there: {there['out']}")
    if there["gpus"] and there["gpus"]["seen"] < promised:
        problems.append(_no_gpu(promised, there["gpus"]))
    if there["cache"]:
        _judge_cache(here["data"], there["cache"], share, problems, notes)
    return problems, notes


def _judge_cache(data: Facts, cache: Mapping[str, Any], share: float, problems: list[str], notes: list[str]) -> None:
    stores = [found for where, found in data.items() if is_uri(where)]
    need = share * sum(found.get("bytes", 0) for found in stores)
    remedy = "set VIDADAPT_CACHE there to a larger disk"
    if not cache["writable"]:
        problems.append(f"shards cannot be kept in {cache['folder']} there; set VIDADAPT_CACHE to a writable folder")
    elif cache["free"] + cache["held"] < max((found.get("largest", 0) for found in stores), default=0):
        problems.append(f"{cache['folder']} has {cache['free'] / 1e9:.1f} GB free, less than one shard; {remedy}")
    elif cache["free"] + cache["held"] < need:
        notes.append(
            f"{cache['folder']} has {cache['free'] / 1e9:.1f} GB free, shards may take {need / 1e9:.1f} GB; {remedy}"
        )


def _told(nodes: Mapping[str, Mapping[str, Any]], said: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines ``10.0.0.7, 10.0.0.8: what is said of both``."""
    addresses = [node["NodeManagerAddress"] for node in nodes.values()]
    alike: dict[tuple[str, ...], list[str]] = {}
    for node_id, words in said.items():
        address = nodes[node_id]["NodeManagerAddress"]
        name = address if addresses.count(address) == 1 else f"{address} ({node_id[:6]})"  # several Rays on a machine
        alike.setdefault(tuple(words), []).append(name)
    return [f"{', '.join(names)}: {'; '.join(words)}" for words, names in alike.items() if words]
