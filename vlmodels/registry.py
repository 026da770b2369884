"""Where a trained model lies: a run's folder, or one that MLflow's registry gives."""

from __future__ import annotations

from pathlib import Path

from vlmodels.errors import UserError


def model_folder(source: str | Path) -> Path:
    """Folder of a model.

    Args:
        source: "models:/name@alias" or "models:/name/3", in the registry that MLflow is set to
            (``mlflow.set_tracking_uri`` or the variable MLFLOW_TRACKING_URI); or a folder.

    Raises:
        UserError: no such model or folder.
    """
    folder = _download(str(source)) if str(source).startswith("models:") else Path(source)
    if not folder.exists():
        raise UserError(f"there is no {folder}; give a run's folder or models:/NAME@ALIAS")
    return folder


def _download(uri: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    store = mlflow.get_registry_uri().removeprefix("sqlite:///")
    if store != mlflow.get_registry_uri() and not Path(store).is_file():  # asking would make an empty one
        raise UserError(
            f"{uri}: there is no registry at {store}; set MLFLOW_TRACKING_URI to where it was registered "
            "(by default sqlite:///runs/mlflow.db)"
        )
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except MlflowException as error:
        raise UserError(
            f"{uri} cannot be had from the registry at {mlflow.get_registry_uri()}: {str(error).splitlines()[0]}; "
            "set MLFLOW_TRACKING_URI to where it was registered"
        ) from error
