"""Digests of the code and the weights, which name a run."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from pipelines.config.plain import digest_of
from pipelines.storage.files import file_sha256

ROOT = Path(__file__).parents[2]
"""The folder that holds the packages."""
COMPUTES = (
    "vlmodels/**/*.py",
    "pipelines/config/**/*.py",
    "pipelines/shards/**/*.py",
    "pipelines/protocols/**/*.py",
    "pipelines/training/**/*.py",
    "pipelines/evaluation/**/*.py",
    "pipelines/runs/**/*.py",
)
"""Sources that decide a run's numbers. Data, split, settings, descriptions and weights are named by their own digests,
so what only makes these (videos, ingestion, planning) is not among them."""
SHOWS = {
    "pipelines/config/text.py": "lays out messages and tables",
    "pipelines/runs/board.py": "carries jobs and messages between driver and workers",
    "pipelines/runs/data_inputs.py": "names a run's data to MLflow",
    "pipelines/runs/group.py": "starts workers, which compute the same however they were started",
    "pipelines/runs/launch.py": "starts workers, which compute the same however they were started",
    "pipelines/runs/lost_workers.py": "reports lost workers; Ray restarts them",
    "pipelines/runs/mlflow_store.py": "opens MLflow's stores, and waits for them",
    "pipelines/runs/model_facts.py": "describes a finished run in the registry",
    "pipelines/runs/model_package.py": "packs a finished run for MLflow",
    "pipelines/runs/owner.py": "keeps a second process from training the same run",
    "pipelines/runs/pages.py": "draws the report of a finished run",
    "pipelines/runs/progress.py": "shows a run's progress; the worker itself writes the numbers",
    "pipelines/runs/protocol_script.py": "parses flags into a configuration, which has its own digest",
    "pipelines/runs/registered_model.py": "wraps a finished run for MLflow",
    "pipelines/runs/registry.py": "registers a finished run",
    "pipelines/runs/run_tags.py": "says who started a run",
    "pipelines/runs/system_load.py": "measures the load of a machine",
    "pipelines/runs/tracking.py": "sends numbers to MLflow",
    "pipelines/runs/trainer.py": "starts the processes of Ray Train",
    "pipelines/protocols/save.py": "writes own splits as lists; a run makes its split itself",
    "vlmodels/bounded_copy.py": "fetches the videos of a registered model",
    "vlmodels/catalogue.py": "lists backbones and their families",
    "vlmodels/command.py": "prints methods, sizes and costs",
    "vlmodels/matrix.py": "lays out tables of methods",
    "vlmodels/published.py": "holds printed numbers to compare with",
    "vlmodels/video_answers.py": "answers questions to a registered model",
    "vlmodels/video_sources.py": "fetches the videos of a registered model",
}
"""Files of these folders that compute nothing, each with the reason."""


@functools.cache
def code_version() -> str:
    """Return the digest of the sources that compute a run.

    All sources together compare machines: ``cluster.node_facts.sources_digest``.
    """
    return digest_of_computing(ROOT)


def digest_of_computing(root: Path) -> str:
    """Return the SHA-256 of the sources that compute a run, with their names, below ``root``."""
    digest = hashlib.sha256()
    for name in computing_files(root):
        digest.update(name.encode() + b"\0" + (root / name).read_bytes())
    return digest.hexdigest()


def computing_files(root: Path) -> list[str]:
    """Return the files of ``COMPUTES`` but those of ``SHOWS``, relative to ``root`` and sorted."""
    found = {path.relative_to(root).as_posix() for pattern in COMPUTES for path in root.glob(pattern)}
    return sorted(found - SHOWS.keys())


def tokenizer_digest(backbone: str, pretrained: str | None) -> str:
    """Return the digest of a Hugging Face tokenizer and text tower beside a weight file; "" without such files."""
    from vlmodels.clip import files_beside  # torch: late

    files = {file.name: file_sha256(file) for file in files_beside(backbone, pretrained)}
    return digest_of(files) if files else ""


@functools.cache
def weights_digest(pretrained: str | None) -> str:
    """Return the SHA-256 of a weight file, which has an absolute path; a tag as it is."""
    from vlmodels.toy import TOY_WEIGHTS

    path = TOY_WEIGHTS if pretrained == "toy" else Path(pretrained or "")
    return file_sha256(path) if path.is_absolute() and path.is_file() else str(pretrained)
