"""What a request may say beside its videos, checked."""

from __future__ import annotations

import csv
import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.serving.limits import Limits, RefusedError
from pipelines.serving.messages import Choice, Timeline

LEAST_S = 0.1
"""Seconds of a window, and between two."""
Fields = TypeVar("Fields", bound=BaseModel)
_Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
_Step = Annotated[float, Field(ge=LEAST_S, le=1e6, allow_inf_nan=False)]


class Options(BaseModel):
    """The fields of ``POST /v1/predict`` beside the videos."""

    model_config = ConfigDict(extra="forbid")

    labels: list[str] | None = Field(None, description="class names to choose from; default: the trained ones")
    topk: int = Field(5, ge=1, le=1000, description="predictions of each video")
    threshold: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="below it, the answer is none of these; default: the model's"
    )
    start: _Seconds | None = Field(None, description="seconds from which on the video is looked at")
    end: _Seconds | None = Field(None, description="and up to which")
    window: _Step | None = Field(None, description="seconds of each window of a timeline; without it there is none")
    stride: _Step | None = Field(None, description="seconds between the starts of two windows; default: half a window")
    pictures: bool = Field(False, description="whether small pictures (JPEG data URIs) come with the answer")

    @model_validator(mode="after")
    def _agree(self) -> Options:
        if self.end is not None and self.end <= (self.start or 0):
            raise ValueError("end is not after start")
        if self.stride is not None and self.window is None:
            raise ValueError("stride needs window")
        return self

    @property
    def choice(self) -> Choice:
        """How videos are answered."""
        return Choice(None if self.labels is None else tuple(self.labels), self.topk, self.threshold)

    @property
    def timeline(self) -> Timeline | None:
        """The windows that are wanted."""
        return None if self.window is None else Timeline(self.window, self.stride or max(LEAST_S, self.window / 2))


class SearchOptions(BaseModel):
    """The fields of ``POST /v1/search``."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=1000, description="what is looked for, in words")
    topk: int = Field(10, ge=1, le=1000, description="results")


def read_options(fields: dict[str, Any], limits: Limits) -> Options:
    """Return the options of a form, whose values are texts, or of JSON.

    Raises:
        RefusedError: 422; a field is unknown or wrong, or there are too many labels.
    """
    given = {name: value for name, value in fields.items() if value != ""}  # empty fields of a form
    if isinstance(given.get("labels"), str):
        given["labels"] = _label_list(given["labels"])
    found = checked(Options, given)
    if found.labels is not None and len(found.labels) > limits.max_labels:
        raise RefusedError(
            422,
            "too_many_labels",
            f"{len(found.labels)} labels are over the limit of {limits.max_labels}",
            limit="max_labels",
            value=limits.max_labels,
        )
    return found


def checked(kind: type[Fields], given: dict[str, Any]) -> Fields:
    """Return fields as ``kind``.

    Raises:
        RefusedError: 422, with what is wrong with each.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))[:100] or 'fields'}: {one['msg']}" for one in error.errors()[:5]]
        raise RefusedError(422, "wrong_fields", "; ".join(wrong)) from error


def _label_list(text: str) -> list[str]:
    """Return the labels of a form's field: JSON, or CSV in which a name with commas is between double quotes."""
    try:
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        rows = csv.reader(text.splitlines(), skipinitialspace=True, strict=True)
        return [name.strip() for row in rows for name in row if name.strip()]
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise RefusedError(
            422,
            "wrong_fields",
            f"labels: write a,b,c or a JSON list; commas inside a name need double quotes ({error})",
        ) from error
