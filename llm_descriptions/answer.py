"""What counts as an answer of the language model: one JSON object with n distinct, non-empty strings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from llm_descriptions.errors import DescriptionError

if TYPE_CHECKING:
    from llm_descriptions.prompts import PromptSet

# A phrase of the published files has at most 49 words; longer than this is an answer gone astray.
_LONGEST = 400


class InvalidAnswerError(DescriptionError):
    """The model's answer is not of the form that was asked for; its message can be shown to the model."""


class _Sentences(BaseModel):
    model_config = ConfigDict(strict=True)

    sentences: list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_LONGEST)]]


def read_answer(content: str | None, prompts: PromptSet, label: str, kind: str, n: int) -> tuple[str, ...]:
    """Return the ``n`` sentences to store; raises ``InvalidAnswerError`` saying what is wrong.

    Around the object, code fences, a preamble and a ``<think>`` part are tolerated; within it nothing is:
    texts are compared, and must differ, as they would be stored.
    """
    text = (content or "").rpartition("</think>")[2]
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start:
        raise InvalidAnswerError("the answer holds no JSON object")
    try:
        phrases = _Sentences.model_validate(json.loads(text[start : stop + 1])).sentences
    except json.JSONDecodeError as error:
        raise InvalidAnswerError(f"the answer is not valid JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidAnswerError(f"the answer's '{place}' is not as asked for: {first['msg']}") from None
    if len(phrases) != n:
        raise InvalidAnswerError(f"the answer has {len(phrases)} strings instead of {n}")
    try:
        sentences = tuple(prompts.sentence(label, kind, phrase) for phrase in phrases)
    except DescriptionError as error:
        raise InvalidAnswerError(f"the answer's string {error}") from None
    if len(set(sentences)) != n:
        raise InvalidAnswerError("the answer says the same thing twice")
    return sentences
