"""Servers that both hosts use: an S3 store, and MLflow on PostgreSQL with its artefacts there; each has an address."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.commands import Commands
from tests.cluster.hosts import OUTSIDE, STOREROOM
from tests.cluster.postgres import Postgres

BUCKET = "vidadapt"
STORE, MLFLOW = f"http://{STOREROOM}:9000", f"http://{OUTSIDE}:5000"
CREDENTIALS = "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n"
ENVIRONMENT: Mapping[str, str] = {
    "AWS_ENDPOINT_URL": STORE,
    "AWS_REGION": "us-east-1",
    "MLFLOW_TRACKING_URI": MLFLOW,
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}


class Services:
    """The servers, as processes. MLflow's has the keys of the store and of the database; the hosts need neither."""

    def __init__(self, commands: Commands, python: str, folder: Path) -> None:
        home = Path.home() / ".aws"
        home.mkdir(exist_ok=True)
        (home / "credentials").write_text(CREDENTIALS)
        self.store = commands.start("moto", python, "-m", "moto.server", "-H", STOREROOM, "-p", "9000")
        self._commands, self._python = commands, python
        self.postgres = Postgres(commands, folder)

    def wait(self) -> None:
        """Wait until the store answers, make the bucket, and start what needs it."""
        from pyarrow import fs

        self.store.wait_for_port(STOREROOM, 9000)
        os.environ.update(ENVIRONMENT)
        fs.S3FileSystem(endpoint_override=STORE, allow_bucket_creation=True).create_dir(BUCKET)
        self.postgres.start()
        places = ["--backend-store-uri", self.postgres.uri, "--artifacts-destination", f"s3://{BUCKET}/mlflow"]
        address = ["--host", OUTSIDE, "--port", "5000", "--workers", "1"]
        self.mlflow = self._commands.start("mlflow", self._python, "-m", "mlflow", "server", *places, *address)
        self.mlflow.wait_for_port(OUTSIDE, 5000)
