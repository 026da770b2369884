"""The folder of a registered model: the run, its code, its signature, and an example that predicts anywhere."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.storage.files import write_whole

CARD = "README.md"
_NEEDED = ("mlflow", "torch", "torchvision", "open_clip_torch", "safetensors", "einops", "numpy", "av", "pillow")
"""What the predictor in ``vlmodels`` imports."""
_EXAMPLE_FRAMES, _EXAMPLE_SIDE = 16, 64
_SOME_LABELS = ("a person walks", "a ball rolls")


def write_package(
    folder: Path,
    run_dir: Path,
    *,
    about: Any,
    card: str,
    own_classes: bool,
    backbone: str,
    weights: Sequence[Path] = (),
) -> None:
    """Write the folder of a registered model.

    Its code is ``registered_model.py`` and a copy of ``vlmodels``, with the versions of what that imports; its
    artefacts are the run's folder (adapter, configuration and class names) and ``weights``.

    Args:
        folder: to write; it does not exist yet.
        run_dir: the run's folder.
        about: MLflow's ``Model`` with identity and metadata.
        card: Markdown for README.md.
        own_classes: whether the model has classes of its own.
        backbone: name of its backbone.
        weights: files of the backbone that travel with it.
    """
    import mlflow.pyfunc

    import vlmodels
    from pipelines.runs import registered_model

    for name in ("mlflow", "mlflow.pyfunc", "mlflow.models"):
        logging.getLogger(name).setLevel(logging.ERROR)
    params: dict[str, Any] = {"topk": 2} if own_classes else {"topk": 2, "labels": list(_SOME_LABELS)}
    mlflow.pyfunc.save_model(
        path=str(folder),
        python_model=registered_model.__file__,
        artifacts={"run": str(run_dir), **{f"weights{n}": str(path) for n, path in enumerate(weights)}},
        code_paths=[str(Path(vlmodels.__file__).parent)],
        pip_requirements=needed_packages(backbone),
        signature=signature(),
        input_example=([example_video()], params),
        mlflow_model=about,
    )
    write_whole(folder / CARD, lambda part: part.write_text(card, encoding="utf-8"))


def needed_packages(backbone: str) -> list[str]:
    """Return what a registered model needs beside its own copy of ``vlmodels``, each pinned to the version here.

    timm and transformers are among it where the backbone has a tower or tokenizer of theirs.

    ``vidadapt`` itself is not among them: it is on no index, and whoever registers that name there would be installed.
    Nor are local versions ("2.9.1+cu128"), which no index but torch's own has.
    """
    from vlmodels.clip import needed_by

    return [f"{name}=={version(name).partition('+')[0]}" for name in (*_NEEDED, *needed_by(backbone))]


def signature() -> Any:
    """Return the signature: a column of strings in; predictions, status and reason out; and the parameters.

    A parameter's default is the model's own value, which JSON says as null, or as no labels.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    prediction = Object([Property("label", DataType.string), Property("probability", DataType.double)])
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string)]),
        outputs=Schema(
            [
                ColSpec(Array(prediction), "predictions"),
                ColSpec(DataType.string, "status"),
                ColSpec(DataType.string, "reason"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("topk", DataType.long, 5),
                ParamSpec("labels", DataType.string, [], shape=(-1,)),
                ParamSpec("threshold", DataType.double, None),
                ParamSpec("clips", DataType.long, None),
            ]
        ),
    )


def example_video() -> str:
    """Return a video of a few kilobytes, a square that moves to the right, as a ``data:`` address."""
    import av

    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width = stream.height = _EXAMPLE_SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(_EXAMPLE_FRAMES):
            picture = np.full((_EXAMPLE_SIDE, _EXAMPLE_SIDE, 3), 64, np.uint8)
            picture[24:40, 3 * number : 3 * number + 16] = (220, 40, 40)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    return "data:video/mp4;base64," + base64.b64encode(content.getvalue()).decode()


def plain(tags: Mapping[str, object]) -> dict[str, str]:
    """Return tags as MLflow takes them; what is not known is left out."""
    return {key: str(value)[:5000] for key, value in tags.items() if value not in (None, "")}
