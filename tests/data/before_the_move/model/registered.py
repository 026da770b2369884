"""The code of a registered model (MLflow "models from code"): a run's folder becomes a predictor of videos."""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class RegisteredModel(PythonModel):  # type: ignore[misc]
    """Answers paths of videos with class names and probabilities."""

    def load_context(self, context: Any) -> None:
        """Build the predictor from the artefact ``run``."""
        from vlmodels.predictor import Predictor

        self.predictor = Predictor.from_run(context.artifacts["run"])

    def predict(self, model_input: list[str], params: dict[str, Any] | None = None) -> list[dict[str, float]]:
        """For each video path, the ``topk`` (default 5) classes with their probabilities."""
        topk = int((params or {}).get("topk", 5))
        return [{p.label: p.probability for p in self.predictor(path, topk=topk)} for path in model_input]


mlflow.models.set_model(RegisteredModel())
