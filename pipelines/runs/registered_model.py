"""The code of a registered model (MLflow "models from code"): a run's folder becomes a predictor of videos."""

from __future__ import annotations

import os
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.environment_variables import MLFLOW_DEFAULT_PREDICTION_DEVICE
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel


class RegisteredModel(PythonModel):  # type: ignore[misc]
    """Answers videos, each a path, an address or base64, with classes and their probabilities."""

    def load_context(self, context: Any) -> None:
        """Build the predictor from the artefact ``run``.

        ``device`` and ``weights`` (the backbone's weight file, where it is not the recorded one) come from the model
        configuration, else from the variables MLFLOW_DEFAULT_PREDICTION_DEVICE and VIDADAPT_WEIGHTS.
        """
        from vlmodels.predictor import Predictor, best_device
        from vlmodels.video_answers import VideoAnswers
        from vlmodels.video_sources import VideoSources

        settings = context.model_config or {}
        self.predictor = Predictor.from_run(
            context.artifacts["run"],
            weights=settings.get("weights") or os.environ.get("VIDADAPT_WEIGHTS") or None,
            device=settings.get("device") or MLFLOW_DEFAULT_PREDICTION_DEVICE.get() or best_device(),
        )
        self.answers = VideoAnswers(self.predictor, VideoSources.from_environment())

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return ``predictions``, ``status`` (ok, none or failed) and ``reason`` of each video.

        Args:
            context: MLflow's.
            model_input: the videos: the first column, or a list.
            params: ``topk``, ``labels``, ``threshold`` and ``clips``.
        """
        del context
        from vlmodels.errors import UserError
        from vlmodels.video_answers import Question

        videos = model_input.iloc[:, 0].tolist() if isinstance(model_input, pd.DataFrame) else list(model_input)
        try:
            given = {name: value for name, value in (params or {}).items() if value is not None}
            question = Question(**{**given, "labels": tuple(given.get("labels", ()))})
            return [answer.to_json() for answer in self.answers(videos, question)]
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


mlflow.models.set_model(RegisteredModel())
