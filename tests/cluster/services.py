"""Servers that both hosts use: an S3 store and an MLflow server, on addresses of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.commands import Commands
from tests.cluster.hosts import OUTSIDE, STOREROOM

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
    """The two servers, as processes."""

    def __init__(self, commands: Commands, python: str, folder: Path) -> None:
        home = Path.home() / ".aws"
        home.mkdir(exist_ok=True)
        (home / "credentials").write_text(CREDENTIALS)
        self.store = commands.start("moto", python, "-m", "moto.server", "-H", STOREROOM, "-p", "9000")
        places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
        address = ["--host", OUTSIDE, "--port", "5000", "--workers", "1"]
        self.mlflow = commands.start("mlflow", python, "-m", "mlflow", "server", *places, *address)

    def wait(self) -> None:
        """Wait until both answer; make the bucket."""
        from pyarrow import fs

        self.store.wait_for_port(STOREROOM, 9000)
        os.environ.update(ENVIRONMENT)
        fs.S3FileSystem(endpoint_override=STORE, allow_bucket_creation=True).create_dir(BUCKET)
        self.mlflow.wait_for_port(OUTSIDE, 5000)
