"""Find the folder of a trained model: a run's, or a registered model's, which MLflow downloads."""

from __future__ import annotations

from pathlib import Path

from vlmodels.errors import UserError
from vlmodels.local_registry import local_model_folder, registry_file
from vlmodels.paths import is_there

_REMEDY = "set MLFLOW_TRACKING_URI, or the scripts' --mlflow, to where it was registered"


def model_folder(source: str | Path) -> Path:
    """Return the folder of a run, or of a registered model ("models:/name@alias"), which is downloaded.

    Raises:
        UserError: the model or folder does not exist.
    """
    folder = _download(str(source)) if str(source).startswith("models:") else Path(source)
    if not is_there(folder):
        raise UserError(f"there is no {folder}; give a run's folder or models:/NAME@ALIAS")
    return folder


def _download(uri: str) -> Path:
    file = registry_file()
    if file is not None and not file.is_file():  # MLflow would create an empty one
        raise UserError(_no_registry(uri, file))
    return local_model_folder(uri) or _download_with_mlflow(uri)


def _download_with_mlflow(uri: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    store = mlflow.get_registry_uri().removeprefix("sqlite:///")
    if store != mlflow.get_registry_uri() and not Path(store).is_file():
        raise UserError(_no_registry(uri, store))
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except MlflowException as error:
        raise UserError(
            f"{uri} cannot be loaded from the registry at {mlflow.get_registry_uri()}: {str(error).splitlines()[0]}; "
            + _REMEDY
        ) from error


def _no_registry(uri: str, store: str | Path) -> str:
    return f"{uri}: there is no registry at {store}; {_REMEDY} (by default sqlite:///runs/mlflow.db)"
