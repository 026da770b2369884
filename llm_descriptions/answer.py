"""Check of the language model's answers: one JSON object with n distinct English phrases."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from llm_descriptions.errors import DescriptionError
from llm_descriptions.prompts import bare_phrase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_descriptions.prompts import PromptSet, Question

_MAX_WORDS = 30
"""The prompt asks for 12 words; of 56,000 published phrases three have more than 30. Longer phrases are off topic."""

_MAX_CHARACTERS = 400
_LONGEST_ANSWER = 200_000
"""Characters of an answer, without reasoning before it."""

# A refusal can only stand at the start of a phrase, so "a dancer saying i'm sorry" passes. No published phrase matches.
_REFUSAL = re.compile(
    r"(?:unfortunately\W+)?(?:"
    r"(?:i'?m|i am|we'?re|we are) (?:(?:very|so|really) )?(?:sorry|afraid|unable|not able)\b|"
    r"(?:i|we) (?:can'?t|cannot|can not|could ?n[o']t|don'?t|do not|won'?t|will not|must decline|apologi[sz]e)\b|"
    r"(?:my )?apologies\b|sorry(?:\W*$|\W+(?:but|i|we|no|this|that)\b)|as an ai\b|as a language model\b)"
)
# What models write if they know no answer, or copy from the format in the prompt.
_PLACEHOLDER = re.compile(
    r"n a|na|none|null|nil|nothing|unknown|undefined|tbd|todo|placeholder|no (?:answer|description|information)|"
    r"not (?:applicable|available|known)|lorem ipsum.*|"
    r"(?:(?:your|first|second|another) (?:string|sentence|phrase|description)(?: here)?|"
    r"(?:string|sentence|phrase|description) (?:\d+|one|two|here))"
)
_MIN_ASCII_SHARE = 0.75
"""The least share of ASCII letters in a phrase."""

_ENGLISH = frozenset(
    "a an and as at by for from her his in into is are it its of on or over their the to using while with".split()  # noqa: SIM905
)
# Common short words of German, French, Spanish, Italian, Portuguese and Dutch that are rare in English phrases.
_FOREIGN = frozenset(
    "auf das dem den der die ein eine im mit und von zu avec dans des du et la le les sur un une con de el en las los "  # noqa: SIM905
    "una y che della gli il com em os para por uma een het van".split()
)


class InvalidAnswerError(DescriptionError):
    """The model's answer does not have the required form; the message can be sent back to the model."""


class _Sentences(BaseModel):
    model_config = ConfigDict(strict=True)

    sentences: list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_MAX_CHARACTERS)]]


def read_answer(
    content: str, prompts: PromptSet, question: Question, *, too_long: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    """Check an answer and return the ``question.n`` sentences to store.

    The JSON object may have a code fence, a preamble and a ``<think>`` part around it. Its phrases must differ by more
    than case and punctuation. Refusals, placeholders, other languages and phrases of more than 30 words are errors.

    Args:
        content: the model's reply.
        prompts: the prompt set that frames the phrases.
        question: the question that the reply answers.
        too_long: says of a sentence, as it would be stored, whether it is too long.

    Raises:
        InvalidAnswerError: the answer cannot be used; the message says why.
    """
    phrases = _parse_phrases(content.rpartition("</think>")[2])
    _check_refusals(phrases)
    if len(phrases) != question.n:
        raise InvalidAnswerError(f"the answer has {len(phrases)} strings instead of {question.n}")
    _check_words(phrases)
    try:
        sentences = tuple(prompts.sentence(question.label, question.kind, phrase) for phrase in phrases)
    except DescriptionError as error:
        raise InvalidAnswerError(f"the answer's string {error}") from None
    if len(set(map(_words, phrases))) != question.n:
        raise InvalidAnswerError("the answer says the same thing twice")
    for number, sentence in enumerate(sentences, 1):
        if too_long is not None and too_long(sentence):
            raise InvalidAnswerError(f"the answer's string {number} has too many tokens: at most 12 plain words")
    return sentences


def _parse_phrases(text: str) -> list[str]:
    """Parse the JSON object in a reply; a reply without one may be a refusal in plain text."""
    if len(text) > _LONGEST_ANSWER:
        raise InvalidAnswerError(f"the answer has {len(text)} characters")
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start:
        raise _plain_refusal(text) or InvalidAnswerError("the answer has no JSON object")
    try:
        return _Sentences.model_validate(json.loads(text[start : stop + 1])).sentences
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        invalid = InvalidAnswerError(f"the answer's '{field}' does not have the required form: {first['msg']}")
    except (ValueError, RecursionError) as error:
        invalid = InvalidAnswerError(f"the answer is not valid JSON: {error}")
    raise _plain_refusal(text) or invalid


def _plain_refusal(text: str) -> InvalidAnswerError | None:
    if not _REFUSAL.search(_normalize(text)):
        return None
    return InvalidAnswerError(f"the answer is a refusal: '{' '.join(text.split())[:100]}'")


def _check_refusals(phrases: Sequence[str]) -> None:
    for phrase in phrases:
        if _REFUSAL.match(_normalize(bare_phrase(phrase))):
            raise InvalidAnswerError(f"the answer is a refusal: '{phrase[:100]}'")
        if _PLACEHOLDER.fullmatch(_words(phrase)):
            raise InvalidAnswerError(f"the answer is a placeholder: '{phrase[:100]}'")


def _normalize(text: str) -> str:
    """Return a text in lower case, with single spaces and straight apostrophes."""
    return " ".join(text.replace("\u2019", "'").lower().split())


def _words(phrase: str) -> str:
    """Return the words of a phrase without its frame, case and punctuation."""
    return " ".join(re.findall(r"[^\W_]+", bare_phrase(phrase)))


def _check_words(phrases: Sequence[str]) -> None:
    """Raise ``InvalidAnswerError`` for phrases that are broken, too long or not in English."""
    for number, phrase in enumerate(phrases, 1):
        name = f"the answer's string {number}"
        if any(_is_control_character(character) for character in "".join(phrase.split())):
            raise InvalidAnswerError(f"{name} has control characters: {phrase[:60]!a}")
        count = len(phrase.split())
        if count > _MAX_WORDS:
            raise InvalidAnswerError(f"{name} has {count} words instead of at most 12")
        letters = [character for character in phrase if character.isalpha()]
        if letters and sum(map(str.isascii, letters)) < _MIN_ASCII_SHARE * len(letters):
            raise InvalidAnswerError(f"{name} is not in English: '{phrase[:60]}'")
    words = re.findall(r"[^\W\d_]+", " ".join(phrases).lower())
    foreign = sum(word in _FOREIGN for word in words)
    english = sum(word in _ENGLISH for word in words)
    if foreign > max(1, english):  # a single foreign word may be part of a name
        raise InvalidAnswerError(f"the answer is not in English: '{phrases[0][:60]}'")


def _is_control_character(character: str) -> bool:
    """Return whether a character is a control character, or stands for bytes that could not be decoded."""
    return character == "\ufffd" or unicodedata.category(character).startswith("C")
