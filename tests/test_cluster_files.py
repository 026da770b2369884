"""cluster.yaml and deploy/: accepted by the tools that read them, and in agreement with the code and the pins."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from pipelines.config.values import parse_value

ROOT = Path(__file__).parents[1]
CLUSTERS = {"cluster.yaml": ROOT / "cluster.yaml", "local-hosts.yaml": ROOT / "deploy" / "local-hosts.yaml"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
BUILT_FROM = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
OTHERS = {"PATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}  # the shell, and Amazon's libraries, read these


@pytest.fixture(scope="module", params=CLUSTERS)
def raw(request):
    return yaml.safe_load(CLUSTERS[request.param].read_text())


@pytest.fixture(scope="module")
def prepared(raw):
    """The configuration as ``ray up`` completes and checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(raw)
    validate_config(config)
    return config


def pin(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, f"{package} is not pinned"
    return found[1]


def shell(command: str, home: Path) -> str:
    """Run one of the cluster's commands as Ray's launcher does over SSH."""
    from ray.autoscaler._private.command_runner import _with_interactive

    line = " ".join(_with_interactive(command))
    environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run(["bash", "-c", line], env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout


def arguments(command: str, script: str):
    """Parse the flags after ``script`` in a documented command, as b2n.py does."""
    from pipelines.planning.training_flags import training_parser

    words = shlex.split(command)
    return training_parser("", "b2n").parse_args(words[words.index(script) + 1 :])


# Ray's cluster launcher


def test_nodes_get_the_packages_and_nothing_else(prepared):
    mounts = {target: source for target, source in prepared["file_mounts"].items() if target != "~/.ray/auth_token"}
    assert set(mounts) == {f"~/vidadapt/{name}" for name in PACKAGES | BUILT_FROM}
    for target, source in mounts.items():
        assert target == f"~/vidadapt/{source}"
        assert (ROOT / source).exists()
    assert prepared["rsync_exclude"] == ["__pycache__"]
    assert any(
        "--constraint constraints.txt --editable '.[serve]'" in command for command in prepared["setup_commands"]
    )


def test_environment_holds_in_every_shell_and_is_written_once(prepared, tmp_path):
    usual = "case $- in *i*) ;; *) return;; esac\n"  # Ubuntu's ~/.bashrc ends here for shells that are not interactive
    (tmp_path / ".bashrc").write_text(usual)
    write = next(command for command in prepared["setup_commands"] if ".bashrc" in command)
    for _ in range(2):
        shell(write, tmp_path)
    assert (tmp_path / ".bashrc").read_text() == f"{usual}. ~/.vidadapt.env\n"
    seen = dict(line.split("=", 1) for line in shell("env", tmp_path).splitlines() if "=" in line)
    assert seen["PATH"].startswith(f"{tmp_path}/.vidadapt/bin:")
    expected = {"RAY_ADDRESS": "auto", "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    assert {name: seen[name] for name in expected} == expected
    names = set(re.findall(r"export (\w+)=", write))
    assert names <= set(seen)
    assert names <= known_names()


def known_names() -> set[str]:
    """Names of environment variables that our sources mention, with those that only other libraries read."""
    sources = "".join(path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    mlflow = {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    return set(re.findall(r"\b(?:AWS|MLFLOW|RAY|VIDADAPT)_\w+", sources)) | OTHERS | mlflow | {"RAY_AUTH_MODE"}


def test_start_commands_are_ones_that_ray_knows(prepared):
    from ray.scripts.scripts import start

    for kind, head in (("head_start_ray_commands", True), ("worker_start_ray_commands", False)):
        assert prepared[kind][0] == "ray stop"
        command = prepared[kind][1]
        assert "&&" not in command  # a host that refuses the limit starts all the same
        options = start.make_context("start", shlex.split(command.split("ray start ")[1])).params
        assert options["head"] is head
        assert options["object_store_memory"] == 2 * 10**9
        if head:
            assert options["dashboard_host"] == "127.0.0.1"
            assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
        else:
            assert options["address"] == "$RAY_HEAD_IP:6379"
        assert ("export RAY_enable_autoscaler_v2=0;" in command) == (prepared["provider"]["type"] == "local")


def test_gpu_workers_come_and_go():
    config = yaml.safe_load(CLUSTERS["cluster.yaml"].read_text())
    types = config["available_node_types"]
    assert types["gpu_worker"]["min_workers"] == types["cpu_worker"]["min_workers"] == 0
    assert sum(kind.get("max_workers", 0) for kind in types.values()) == config["max_workers"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    region = config["provider"]["region"]
    assert config["provider"]["availability_zone"].startswith(region)
    assert f"export AWS_REGION={region} " in config["setup_commands"][0]
    usage = re.search(r"ray submit cluster.yaml .*", CLUSTERS["cluster.yaml"].read_text())
    args = arguments(usage[0], "--")
    assert (args.workers, args.gpu) == (types["gpu_worker"]["max_workers"], True)


def test_aws_accepts_the_nodes(tmp_path, monkeypatch):
    """Ray's own steps of ``ray up``, against moto's EC2 and IAM in this process."""
    moto = pytest.importorskip("moto")
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".ssh").mkdir()
    config = prepare_config(yaml.safe_load(CLUSTERS["cluster.yaml"].read_text()))
    region = config["provider"]["region"]
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": region, "HOME": str(tmp_path)}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with moto.mock_aws():
        ec2, iam = boto3.client("ec2"), boto3.client("iam")
        for kind in config["available_node_types"].values():
            name = kind["node_config"]["IamInstanceProfile"]["Name"]
            if name not in {p["InstanceProfileName"] for p in iam.list_instance_profiles()["InstanceProfiles"]}:
                iam.create_instance_profile(InstanceProfileName=name)
        types = {name: kind["node_config"]["InstanceType"] for name, kind in config["available_node_types"].items()}
        known = ec2.describe_instance_types(InstanceTypes=list(types.values()))["InstanceTypes"]
        gpus = {kind["InstanceType"]: kind.get("GpuInfo", {}).get("Gpus", []) for kind in known}
        assert [len(gpus[name]) for name in types.values()] == [0, 1, 0]

        config = AWSNodeProvider.bootstrap_config(config)
        (group,) = ec2.describe_security_groups(GroupNames=["vidadapt"])["SecurityGroups"]
        assert [rule["FromPort"] for rule in group["IpPermissions"] if rule["IpRanges"]] == [22]

        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name, kind in config["available_node_types"].items():
            tags = {"ray-node-type": "head", "ray-launch-config": "", "ray-user-node-type": name}
            (node,) = provider.create_node(kind["node_config"], tags, 1).values()
            assert node.instance_type == types[name]
            assert (node.instance_lifecycle == "spot") == (name != "head")


def test_readme_submits_what_the_cluster_can_hold():
    text = re.sub(r"\\\n", " ", (ROOT / "README.md").read_text())
    args = arguments(re.search(r"^ray submit cluster.yaml pipelines/b2n.py .*$", text, re.MULTILINE)[0], "--")
    types = yaml.safe_load(CLUSTERS["cluster.yaml"].read_text())["available_node_types"]
    assert (args.workers, args.gpu) == (types["gpu_worker"]["max_workers"], True)


# KubeRay


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((ROOT / "deploy" / "kuberay.yaml").read_text())["spec"]


@pytest.fixture(scope="module")
def groups(job):
    cluster = job["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pod(group) -> dict:
    return group["template"]["spec"]


def container(group) -> dict:
    (only,) = pod(group)["containers"]
    return only


def test_job_is_a_command_of_ours_on_as_many_gpus(job, groups):
    args = arguments(job["entrypoint"], "pipelines.b2n")
    (worker,) = groups[1:]
    assert (worker["minReplicas"], worker["maxReplicas"]) == (0, args.workers)
    least = parse_value(dict(item.split("=") for item in args.set)["scale.min_workers"], int, "scale.min_workers")
    assert 0 < least < args.workers
    assert args.gpu
    assert container(worker)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in container(groups[0])["resources"]["limits"]
    assert job["shutdownAfterJobFinishes"]
    assert job["rayClusterSpec"]["enableInTreeAutoscaling"]


def test_all_pods_run_one_image_and_the_pinned_ray(job, groups):
    assert {container(group)["image"] for group in groups} == {"REGISTRY/vidadapt@sha256:DIGEST"}  # the user's own
    assert job["rayClusterSpec"]["rayVersion"] == pin("ray")
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_pods_have_the_variables_that_the_code_reads(groups):
    for group in groups:
        given = {item["name"]: item for item in container(group)["env"]}
        assert set(given) <= known_names()
        secret = {name for name in given if re.search("KEY|SECRET|PASSWORD|USERNAME", name)}
        assert secret == {name for name, item in given.items() if "value" not in item}
        assert all(set(given[name]["valueFrom"]) == {"secretKeyRef"} for name in secret)
        assert "RAY_ADDRESS" not in given
        mounts = {mount["mountPath"]: mount["name"] for mount in container(group)["volumeMounts"]}
        assert given["VIDADAPT_CACHE"]["value"] in mounts
        assert set(mounts.values()) == {volume["name"] for volume in pod(group)["volumes"]}


def test_pods_have_room_for_what_they_hold(groups):
    for group in groups:
        resources = container(group)["resources"]
        assert resources["limits"] == resources["requests"]
        sizes = {volume["name"]: gibibytes(volume["emptyDir"]["sizeLimit"]) for volume in pod(group)["volumes"]}
        assert int(group["rayStartParams"]["object-store-memory"]) / 2**30 < sizes["shm"]
        assert sizes["shm"] <= gibibytes(resources["limits"]["memory"]) / 2
        assert sizes["cache"] < gibibytes(resources["limits"]["ephemeral-storage"])
        assert pod(group)["securityContext"]["runAsNonRoot"] is True


def gibibytes(text: str) -> int:
    return int(text.removesuffix("Gi"))


# The image


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.MULTILINE))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line]


def test_image_has_the_packages_and_the_pins():
    steps = instructions()
    copied = [word for name, rest in steps if name == "COPY" for word in rest.split()[:-1]]
    assert set(copied) == PACKAGES | BUILT_FROM
    text = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text()
    ignored = [line for line in text.splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line[0] == "!"} == set(copied)
    assert all(any(option in rest for option in ("--constraint", "--no-deps")) for _, rest in steps if "pip " in rest)
    assert any("pip install" in rest and "--constraint constraints.txt" in rest for _, rest in steps)


def test_image_runs_as_the_user_that_pods_run_as(groups):
    steps = instructions()
    users = [rest for name, rest in steps if name == "USER"]
    assert users == [str(pod(groups[0])["securityContext"]["runAsUser"])]
    assert any(f"--uid {users[0]}" in rest for _, rest in steps)
    assert steps[-1] == ("WORKDIR", "/home/ray")
    least = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert steps[:2] == [("ARG", "BASE"), ("FROM", "${BASE}")]
    assert f"--build-arg BASE=python:{least}-slim@sha256:DIGEST" in (ROOT / "deploy" / "Dockerfile").read_text()


# ----------------------------------------------------------------------------------------------------------------------
# Secrets and rights
# ----------------------------------------------------------------------------------------------------------------------


def test_keys_travel_encrypted_on_kubernetes():
    text = (ROOT / "deploy" / "kuberay.yaml").read_text()
    assert "http://" not in text
    assert text.count("https://") >= 2


def test_an_image_is_named_by_its_digest():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["${BASE}"]
    assert re.search(r"^ARG BASE$", text, re.MULTILINE), "without a default, so a build without a digest fails"


def test_the_heads_role_has_the_least_rights():
    assert "FullAccess" not in CLUSTERS["cluster.yaml"].read_text()
    policy = json.loads((ROOT / "deploy" / "head-role.json").read_text())
    actions = [
        a for s in policy["Statement"] for a in (s["Action"] if isinstance(s["Action"], list) else [s["Action"]])
    ]
    assert not [action for action in actions if "*" in action]
    (passed,) = [s for s in policy["Statement"] if s["Action"] == "iam:PassRole"]
    assert passed["Resource"] == "arn:aws:iam::ACCOUNT:role/vidadapt-worker"
    assert passed["Condition"]["StringEquals"] == {"iam:PassedToService": "ec2.amazonaws.com"}
    ended = next(s for s in policy["Statement"] if "ec2:TerminateInstances" in s["Action"])
    cluster = yaml.safe_load(CLUSTERS["cluster.yaml"].read_text())["cluster_name"]
    assert ended["Condition"]["StringEquals"] == {"ec2:ResourceTag/ray-cluster-name": cluster}
