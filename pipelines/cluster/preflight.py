"""Checks of a cluster before workers start: everything that would fail on some machine is named at once."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster import node_facts
from pipelines.cluster.ask_nodes import Ask, ask
from pipelines.cluster.capacity import check_room, places
from pipelines.cluster.node_facts import CacheFacts, DataFacts, FileFacts, GpuFacts, MachineFacts, Request
from pipelines.cluster.view import CONNECTED, ClusterView, RayNode
from pipelines.config.schema import ScaleConfig, TrainConfig
from pipelines.storage.place import SCRATCH, is_uri, without_secrets
from vlmodels.errors import UserError, refuse
from vlmodels.paths import absolute, is_file

_COPY = "copy the ingested folder of this machine there, or put it in a store or shared folder"


@dataclass(frozen=True)
class Verdict:
    """What forbids a worker on a machine, each with its remedy; and what is merely worth a note."""

    problems: list[str]
    notes: list[str]


def check_cluster(
    config: TrainConfig,
    *,
    data: Sequence[str],
    timeout_s: float = 120,
    cluster: ClusterView = CONNECTED,
    ask: Ask = ask,
) -> list[str]:
    """Ask every machine that could hold a worker whether one can run there; Ray must be connected.

    Versions, sources, data, weight file, folder of runs, cache and GPUs are compared with this process' own. A cluster
    of one machine, this one, is asked for room and GPUs alone. Workers on machines that join later compare versions
    and sources themselves (``node_facts.differences``).

    Args:
        config: of the run, with absolute paths.
        data: folders or URIs of all ingested data that it reads.
        timeout_s: seconds within which a machine must answer.
        cluster: what Ray shows of the machines.
        ask: how machines are asked.

    Returns:
        What a reader should know, one line each.

    Raises:
        UserError: machines could not run a worker (all are named, each with the remedy), this machine itself cannot
            read the data, or too few workers fit.
    """
    nodes = cluster.nodes()
    notes = check_room(config.scale, nodes, cluster=cluster)
    if len(nodes) == 1:
        _check_own_gpus(config.scale, nodes[0])
        return notes
    able = {node["NodeID"]: node for node in nodes if places(config.scale, node["Resources"])}
    request = _request(config, data)
    here = node_facts.facts({**request, "out": "", "cache": False, "gpus": False})
    _check_own_data(here)
    with shared_file(config.out) as shared:
        asked: Request = {**request, "shared": shared, "sources": here["sources"]}
        answers = ask(list(able), node_facts.facts, asked, timeout_s)
        here["shared"] = node_facts.look(shared) if shared else None
    if lost := able.keys() - answers.keys():
        notes = check_room(config.scale, cluster.nodes(), cluster=cluster)
        notes += lines_by_machine(able, {node_id: ["left the cluster while it was checked"] for node_id in lost})
    share = 1 / len(able) if config.data.parts > 1 and able else 1.0
    verdicts = {node_id: _judge(here, answer, able[node_id], share) for node_id, answer in answers.items()}
    refuse(lines_by_machine(able, {node_id: verdict.problems for node_id, verdict in verdicts.items()}))
    return notes + lines_by_machine(able, {node_id: verdict.notes for node_id, verdict in verdicts.items()})


def _check_own_gpus(scale: ScaleConfig, node: RayNode) -> None:
    if not scale.gpu or os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # hidden from this process alone
        return
    import torch

    promised = int(node["Resources"].get("GPU", 0))
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen < promised:
        raise UserError(f"{node['NodeManagerAddress']}: {_missing_gpus(promised, {'seen': seen, 'complaint': ''})}")


def _request(config: TrainConfig, data: Sequence[str]) -> Request:
    from vlmodels.clip import files_beside  # torch: late

    weights = config.backbone.pretrained or ""
    return {
        "data": list(data),
        "weights": weights if is_file(weights) else "",
        "beside": [str(file) for file in files_beside(config.backbone.name, weights)],
        "out": config.out if is_uri(config.out) else str(_local(config.out)),
        "shared": "",
        "sources": "",
        "cache": any(is_uri(where) for where in data),
        "gpus": config.scale.gpu,
    }


def _local(out: str) -> Path:
    return absolute(out.removeprefix("file://"))


def _check_own_data(here: MachineFacts) -> None:
    refuse(
        [
            f"this machine cannot read {without_secrets(where)}: {found['error']}; correct that and run the same "
            "command again"
            for where, found in here["data"].items()
            if "error" in found
        ]
    )


@contextlib.contextmanager
def shared_file(out: str) -> Iterator[str]:
    """Write a file to a local ``out``, by which other machines recognize the same folder; yield "" for a store."""
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


def _judge(here: MachineFacts, answer: MachineFacts | str, node: RayNode, share: float) -> Verdict:
    if isinstance(answer, str):
        return Verdict([answer], [])
    return compare(here, answer, promised=int(node["Resources"].get("GPU", 0)), share=share)


def compare(here: MachineFacts, there: MachineFacts, *, promised: int = 0, share: float = 1.0) -> Verdict:
    """Compare a machine's facts with this process'.

    Args:
        here: facts of this process.
        there: facts of the other machine.
        promised: GPUs that Ray counts there.
        share: part of the shards that a machine may have to keep.
    """
    problems, notes = node_facts.compare_versions(here, there)
    for where, found in there["data"].items():
        problems += _data_problems(without_secrets(where), here["data"][where], found)
    problems += _file_problems("the weight file", here["weights"], there["weights"])
    for path, file in there["beside"].items():
        problems += _file_problems(f"the tokenizer's {Path(path).name}", here["beside"][path], file)
    if there["shared"] != here["shared"]:
        problems.append(
            "runs would be kept on each machine by itself; --out must be a shared folder or a store (s3://...)"
        )
    elif there["out"]:
        problems.append(f"runs cannot be written from there: {there['out']}")
    if there["gpus"] and there["gpus"]["seen"] < promised:
        problems.append(_missing_gpus(promised, there["gpus"]))
    if there["cache"]:
        room = _judge_cache(here["data"], there["cache"], share)
        problems += room.problems
        notes += room.notes
    return Verdict(problems, notes)


def _file_problems(name: str, own: FileFacts, found: FileFacts) -> list[str]:
    if "error" in found:
        return [f"{name} cannot be read there ({found['error']}); copy it to the same path"]
    if found != own:
        return [f"{name} is another one there ({found['bytes']} bytes, sha256 {found['sha256'][:12]}); copy it"]
    return []


def _data_problems(name: str, own: DataFacts, found: DataFacts) -> list[str]:
    if "error" in found:
        return [f"{name} cannot be read there: {found['error']}; put the data in a store or shared folder"]
    if found and found["digest"] != own["digest"]:
        return [f"{name} holds other data there; {_COPY}"]
    if found and found["layout"] != own["layout"]:
        return [f"{name} holds the same clips there, but ingested apart, in other shards; {_COPY}"]
    return []


def _missing_gpus(promised: int, found: GpuFacts) -> str:
    complaint = f" ({found['complaint']})" if found["complaint"] else ""
    return (
        f"Ray promises {promised} GPUs there, PyTorch sees {found['seen']}{complaint}: repair its driver, install a "
        f"torch that has CUDA, or start Ray there with --num-gpus={found['seen']}"
    )


def _judge_cache(data: Mapping[str, DataFacts], cache: CacheFacts, share: float) -> Verdict:
    stores = [found for where, found in data.items() if is_uri(where)]
    needed = share * sum(found.get("bytes", 0) for found in stores)
    largest = max((found.get("largest", 0) for found in stores), default=0)
    room = cache["free"] + cache["held"]
    free = f"{cache['folder']} has {cache['free'] / 1e9:.1f} GB free"
    remedy = "set VIDADAPT_CACHE there to a larger disk"
    if not cache["writable"]:
        remedy = "set VIDADAPT_CACHE to a writable folder"
        return Verdict([f"shards cannot be kept in {cache['folder']} there; {remedy}"], [])
    if room < largest:
        return Verdict([f"{free}, less than one shard; {remedy}"], [])
    if room < needed:
        return Verdict([], [f"{free}, shards may take {needed / 1e9:.1f} GB; {remedy}"])
    return Verdict([], [])


def lines_by_machine(nodes: Mapping[str, RayNode], words: Mapping[str, Sequence[str]]) -> list[str]:
    """Return lines ``10.0.0.7, 10.0.0.8: words``; machines with the same words share a line, those without have none.

    Args:
        nodes: machines by their ids.
        words: of each id.
    """
    addresses = [node["NodeManagerAddress"] for node in nodes.values()]
    alike: dict[tuple[str, ...], list[str]] = {}
    for node_id, own in words.items():
        address = nodes[node_id]["NodeManagerAddress"]
        alone = addresses.count(address) == 1  # several Rays may run on one machine
        alike.setdefault(tuple(own), []).append(address if alone else f"{address} ({node_id[:6]})")
    return [f"{', '.join(names)}: {'; '.join(own)}" for own, names in alike.items() if own]
