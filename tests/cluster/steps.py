"""What must work on two hosts when nothing fails."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import time
from pathlib import Path

from pyarrow import fs

from tests.cluster.hosts import HEAD, WORKER
from tests.cluster.lab import DATA, EPOCHS, RUN, Lab, check, files, losses, record, store
from tests.cluster.services import BUCKET, MLFLOW

RUNS = f"s3://{BUCKET}/runs"
MODEL = "two-hosts"


def bring_up(lab: Lab) -> None:
    """``ray up`` starts both hosts; each has its own copy of the project; the dashboard is private."""
    lab.cluster.up()
    wait_for_nodes(lab, 2)
    where = lab.cluster.on_head("where", "python -c 'import pipelines; print(pipelines.__file__)'")
    check("/root/vidadapt/pipelines" in where, f"the hosts import {where}")
    for address in (HEAD, WORKER):
        try:
            socket.create_connection((address, 8265), 2).close()
        except OSError:
            continue
        check(False, f"the dashboard of {address} answers strangers")


def ingest(lab: Lab) -> None:
    """Videos in the store become shards there, decoded on both hosts; one process begins a run to compare with."""
    lab.services.wait()
    check(lab.world.end() == 0, f"failed: {lab.world}")
    world = lab.work / "world" / "toy-ucf"
    fs.copy_files(str(world / "videos"), f"{BUCKET}/videos", destination_filesystem=store())
    lists = lab.work / "lists"
    lists.mkdir()
    for path in (*world.glob("*.txt"), *world.glob("*.csv")):
        shutil.copy(path, lists)
    lab.cluster.copy(lists, "~/lists")
    arguments = ["--videos", *(f"~/lists/{name}.txt" for name in ("fs_base_s1_train", "base_val", "novel_val"))]
    arguments += ["--labels", *(f"~/lists/{part}_labels.csv" for part in ("base", "base", "novel"))]
    arguments += ["--root", f"s3://{BUCKET}/videos", "--out", DATA, "--size", "48", "--frames", "4", "--pool", "1"]
    command = lab.cluster.submit("ingest", "pipelines/ingest.py", arguments)
    check(command.end(300) == 0, f"failed: {command}")
    on = re.search(r"decoded on .*", command.output)
    check(on is not None and {HEAD, WORKER} == set(re.findall(r"[\d.]{9,}", on[0])), f"not on both: {command}")
    print(f"     {on and on[0]}")
    out = str(lab.work / "alone")
    lab.alone = lab.commands.start("alone", lab.python, "-m", "tests.cluster.alone", "--data", DATA, "--out", out, *RUN)


def wait_for_nodes(lab: Lab, count: int, seconds: int = 200) -> None:
    """Wait until Ray has as many live nodes."""
    code = f"""
import ray, sys, time
ray.init(logging_level="ERROR")
until = time.time() + {seconds}
while time.time() < until:
    alive = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
    if len(alive) == {count}:
        sys.exit(print("alive:", *alive))
    time.sleep(0.5)
sys.exit(f"only {{alive}} are alive")
"""
    script = lab.work / "nodes.py"
    script.write_text(code)
    lab.commands.run("nodes", lab.cluster.ray, "submit", lab.cluster.file, str(script), seconds=seconds + 60)


def train(lab: Lab) -> None:
    """``ray submit``: one model trained on both hosts, with the numbers of one process; tracked and registered."""
    command = lab.b2n("train", RUNS, "--register", MODEL)
    check(command.end(400) == 0, f"failed: {command}")
    up = re.search(r"2 workers are up .*on ([\d.]+) \(rank 0\), ([\d.]+) \(rank 1\)", command.output)
    check(up is not None and set(up.groups()) == {HEAD, WORKER}, f"not one worker on each host: {command}")
    fetched = {int(rank): int(n) for rank, n in re.findall(r"rank (\d) has fetched (\d+) shards?", command.output)}
    shards = sum("/shards/" in info.path for info in files(DATA))
    check(set(fetched) == {0, 1}, f"the hosts fetched {fetched}: {command}")
    check(sum(fetched.values()) <= shards + 1, f"{fetched} fetched of {shards} shards: not each its own part")
    done = record(RUNS)
    check(len(losses(done)) == EPOCHS, f"{len(losses(done))} epochs")
    sent = {epoch["network_bytes_per_step"] for epoch in done["history"]}
    check(sent == {4 * done["cost"]["trainable"]}, f"{sent} bytes a step for {done['cost']['trainable']} parameters")
    for name in ("loss", "clips_per_second", "data_wait", "network_wait"):
        tracked, written = of_mlflow(done["tracking"]["run_id"], name), [epoch[name] for epoch in done["history"]]
        check(tracked == written, f"{name} in MLflow is {tracked}, in run.json {written}")
    check(min(written) > 0, f"two hosts never waited for each other: {written}")
    single = alone(lab)
    compare(done, single, 1e-4)
    print(f"     {up and up[0]}\n     shards by rank: {fetched}; bytes a step: {sent}")
    for kind, run in (("two hosts", done), ("one process", single)):
        print(f"     losses, {kind}: {' '.join(f'{loss:.6f}' for loss in losses(run))}")


def registry(lab: Lab) -> None:
    """The registry on PostgreSQL and S3: tags, data, scores and the load of both hosts; an alias moves when asked."""
    from mlflow import MlflowClient

    client, done = MlflowClient(MLFLOW), record(RUNS)
    version = client.get_model_version_by_alias(MODEL, "champion")
    check(version.tags.get("method") == "adaptformer", f"tags of the version: {version.tags}")
    check("hm" in version.tags, f"no score among {version.tags}")
    check(f"models:/{MODEL}@champion" in version.description, f"the card says: {version.description[:300]}")
    run = client.get_run(done["tracking"]["run_id"])
    contexts = sorted(tag.value for data in run.inputs.dataset_inputs for tag in data.tags if "context" in tag.key)
    check(contexts == ["test", "test", "train"], f"data of the run: {contexts}")
    loads = {host for host in (HEAD, WORKER) if f"system/{host}/cpu_utilization_percentage" in run.data.metrics}
    check(loads == {HEAD, WORKER}, f"the load of {loads or 'no host'} alone: {sorted(run.data.metrics)}")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    tied = {metric.key: metric.dataset_name for metric in model.metrics}
    check(tied.get("base/top1") == "toy-ucf/base", f"scores of the model: {tied}")
    stored = [info.path for info in files(f"s3://{BUCKET}/mlflow") if info.path.endswith("MLmodel")]
    check(len(stored) == 1, f"models in the store: {stored}")

    out = f"s3://{BUCKET}/other-rate"
    other = lab.b2n("other", out, "--register", MODEL, "--set", "optim.lr=2e-3")
    check(other.end(400) == 0, f"failed: {other}")
    check("stays version 1; the new one is version 2" in other.output, f"the alias was not spoken of: {other}")
    check(client.get_model_version_by_alias(MODEL, "champion").version == version.version, "the alias moved unasked")
    for alias_version, runs, flags in (("2", out, ("--set", "optim.lr=2e-3")), ("1", RUNS, ())):
        moved = lab.b2n("move", runs, "--register", MODEL, "--move-alias", *flags)
        check(moved.end(240) == 0, f"failed: {moved}")
        found = client.get_model_version_by_alias(MODEL, "champion").version
        check(str(found) == alias_version, f"the alias points to {found}, not to {alias_version}: {moved}")


def of_mlflow(run_id: str, name: str) -> list[float]:
    """Return a metric of a finished run on the MLflow server, by epoch."""
    from mlflow import MlflowClient

    client = MlflowClient(MLFLOW)
    status = client.get_run(run_id).info.status
    check(status == "FINISHED", f"run {run_id} is {status} in MLflow")
    return [metric.value for metric in client.get_metric_history(run_id, name)]


def alone(lab: Lab) -> dict:
    """Return the record of the same run in one process, without Ray."""
    check(lab.alone.end() == 0, f"failed: {lab.alone}")
    (done,) = (lab.work / "alone").glob("*/run.json")
    return json.loads(done.read_text())


def compare(one: dict, other: dict, tolerance: float = 0.0) -> None:
    """Compare two runs: the same losses, and the same scores but for a video or two if losses may differ."""
    check(one["name"] == other["name"], f"{one['name']} is another run than {other['name']}")
    pairs = list(zip(losses(one), losses(other), strict=True))
    check(all(math.isclose(*pair, rel_tol=tolerance) for pair in pairs), f"losses differ: {pairs}")
    if tolerance:
        scores = [(one["metrics"][name]["top1"], other["metrics"][name]["top1"]) for name in ("base", "novel")]
        check(all(math.isclose(*pair, abs_tol=5.0) for pair in scores), f"other scores: {scores}")  # of 40 videos
    else:
        check(one["metrics"] == other["metrics"], "same losses, other scores")


def pull(lab: Lab) -> None:
    """The host where nothing was submitted pulls the model from the registry and predicts."""
    video = min((lab.work / "world" / "toy-ucf" / "videos").glob("*.mp4"))
    lab.cluster.ssh("copy", WORKER, "mkdir -p ~/clips")
    (Path(lab.worker.folder) / "root" / "clips" / video.name).write_bytes(video.read_bytes())
    predict = f"python -m pipelines.predict ~/clips/{video.name} --model models:/{MODEL}@champion --topk 3"
    output = lab.cluster.ssh("predict", WORKER, predict)
    check(len(re.findall(r"%  \w+", output)) == 3, f"no three classes in: {output}")


def serve(lab: Lab) -> None:
    """``ray submit`` of the server: a port here leads to it, its model and decoders have a host each, none stays."""
    video = min((lab.work / "world" / "toy-ucf" / "videos").glob("*.mp4"))
    server = ["--model", f"models:/{MODEL}@champion"]
    command = lab.cluster.submit("serve", "pipelines/serve.py", server, ports=[8000])
    try:
        command.wait_for("ready: http://127.0.0.1:8000", 300)
        command.wait_for_port("127.0.0.1", 8000)
        ask = ("curl", "--silent", "--show-error", "--max-time", "60", "--form", f"video=@{video}")
        answer = json.loads(lab.commands.run("ask", *ask, "http://127.0.0.1:8000/v1/predict"))
        check(answer["results"][0]["status"] == "ok", f"the server answers {answer}")
        for address in (HEAD, WORKER):
            replicas = lab.cluster.ssh("replicas", address, "ps -eo args= | grep -c '^ray::ServeReplica' || true")
            check(replicas.strip() == "1", f"{replicas.strip()} replicas on {address}")
    finally:
        command.stop()  # as a terminal that is closed
    for address in (HEAD, WORKER):
        nothing_left(lab, address, "ps -eo args= | grep -E '^ray::ServeReplica|serve[.]py' || true", seconds=60)


def submit_job(lab: Lab) -> None:
    """``ray job submit`` through the tunnel of ``ray dashboard``; the run in the store is found and not repeated."""
    with lab.job("job", RUNS) as command:
        check(command.end(240) == 0, f"failed: {command}")
    check("unchanged, finished before" in command.output, f"trained again: {command}")


def take_down(lab: Lab) -> None:
    """``ray down`` ends Ray on the head; the other host would notice in two minutes, ``ray stop`` there is quicker."""
    lab.cluster.down()
    lab.cluster.ssh("stop", WORKER, "ray stop")
    for address in (HEAD, WORKER):
        nothing_left(lab, address, "ps -eo comm= | grep -E '^(raylet|gcs_server|ray::)' || true", seconds=20)


def nothing_left(lab: Lab, address: str, command: str, seconds: float) -> None:
    """Wait until a command that lists processes of a host lists none."""
    until = time.monotonic() + seconds
    while left := lab.cluster.ssh("left", address, command).strip():
        check(time.monotonic() < until, f"still running on {address}: {left}")
        time.sleep(1)
