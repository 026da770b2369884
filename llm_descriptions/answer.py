"""What counts as an answer of the language model: one JSON object with n distinct English phrases."""

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

    from llm_descriptions.prompts import PromptSet

# 12 words are asked for; of 56,000 published phrases three have more than 30. Longer ones are answers gone astray.
_MOST_WORDS = 30
_LONGEST = 400

# No published phrase matches, "saying i'm sorry" included: within a phrase a refusal can only stand first.
_REFUSAL = re.compile(
    r"(?:unfortunately\W+)?(?:"
    r"(?:i'?m|i am|we'?re|we are) (?:(?:very|so|really) )?(?:sorry|afraid|unable|not able)\b|"
    r"(?:i|we) (?:can'?t|cannot|can not|could ?n[o']t|don'?t|do not|won'?t|will not|must decline|apologi[sz]e)\b|"
    r"(?:my )?apologies\b|sorry(?:\W*$|\W+(?:but|i|we|no|this|that)\b)|as an ai\b|as a language model\b)"
)
# What models write where they have nothing to say, or copy from the question's format.
_PLACEHOLDER = re.compile(
    r"n a|na|none|null|nil|nothing|unknown|undefined|tbd|todo|placeholder|no (?:answer|description|information)|"
    r"not (?:applicable|available|known)|lorem ipsum.*|"
    r"(?:(?:your|first|second|another) (?:string|sentence|phrase|description)(?: here)?|"
    r"(?:string|sentence|phrase|description) (?:\d+|one|two|here))"
)
_LEAST_ASCII = 0.75
_ENGLISH = frozenset(
    "a an and as at by for from her his in into is are it its of on or over their the to using while with".split()  # noqa: SIM905
)
# Little words of German, French, Spanish, Italian, Portuguese and Dutch that English phrases hardly have.
_OTHER = frozenset(
    "auf das dem den der die ein eine im mit und von zu avec dans des du et la le les sur un une con de el en las los "  # noqa: SIM905
    "una y che della gli il com em os para por uma een het van".split()
)


class InvalidAnswerError(DescriptionError):
    """The model's answer is not of the form that was asked for; its message can be shown to the model."""


class _Sentences(BaseModel):
    model_config = ConfigDict(strict=True)

    sentences: list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_LONGEST)]]


def read_answer(
    content: str,
    prompts: PromptSet,
    label: str,
    kind: str,
    n: int,
    *,
    too_long: Callable[[str], bool] | None = None,
) -> tuple[str, ...]:
    """Return the ``n`` sentences to store; raises ``InvalidAnswerError`` saying what is wrong.

    Around the object, code fences, a preamble and a ``<think>`` part are tolerated; within it nothing is:
    texts must differ by more than case and punctuation. Refusals, placeholders, other languages and phrases of
    more than 30 words (12 are asked for) are told apart from answers of another form. ``too_long`` may refuse
    sentences as they would be stored.
    """
    text = content.rpartition("</think>")[2]
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start:
        raise _refusal(text) or InvalidAnswerError("the answer holds no JSON object")
    try:
        phrases = _Sentences.model_validate(json.loads(text[start : stop + 1])).sentences
    except (ValueError, RecursionError) as error:
        raise _refusal(text) or InvalidAnswerError(_form(error)) from None
    for phrase in phrases:
        if _REFUSAL.match(_plain(bare_phrase(phrase))):
            raise InvalidAnswerError(f"the answer is a refusal: '{phrase[:100]}'")
        if _PLACEHOLDER.fullmatch(_words(phrase)):
            raise InvalidAnswerError(f"the answer is a placeholder: '{phrase[:100]}'")
    if len(phrases) != n:
        raise InvalidAnswerError(f"the answer has {len(phrases)} strings instead of {n}")
    _check_words(phrases)
    try:
        sentences = tuple(prompts.sentence(label, kind, phrase) for phrase in phrases)
    except DescriptionError as error:
        raise InvalidAnswerError(f"the answer's string {error}") from None
    if len(set(map(_words, phrases))) != n:
        raise InvalidAnswerError("the answer says the same thing twice")
    for number, sentence in enumerate(sentences, 1):
        if too_long is not None and too_long(sentence):
            raise InvalidAnswerError(f"the answer's string {number} has too many tokens: at most 12 plain words")
    return sentences


def _form(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"the answer is not valid JSON: {error}"
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"the answer's '{place}' is not as asked for: {first['msg']}"


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").lower().split())


def _words(phrase: str) -> str:
    """Return a phrase without its frame, case and punctuation."""
    return " ".join(re.findall(r"[^\W_]+", bare_phrase(phrase)))


def _refusal(text: str) -> InvalidAnswerError | None:
    said = " ".join(text.split())
    return InvalidAnswerError(f"the answer is a refusal: '{said[:100]}'") if _REFUSAL.search(_plain(text)) else None


def _check_words(phrases: Sequence[str]) -> None:
    """Raise for phrases that are broken, too long or not in English.

    Broken: with control characters or what stands for undecodable bytes. By script: at least
    three quarters of the letters are ASCII. By language: over all phrases, no more of the little words of six
    other languages than of English ones (one such word alone may be a name).
    """
    for number, phrase in enumerate(phrases, 1):
        if any(char == "\ufffd" or unicodedata.category(char)[0] == "C" for char in "".join(phrase.split())):
            raise InvalidAnswerError(f"the answer's string {number} holds control characters: {phrase[:60]!a}")
        if (count := len(phrase.split())) > _MOST_WORDS:
            raise InvalidAnswerError(f"the answer's string {number} has {count} words instead of at most 12")
        letters = [char for char in phrase if char.isalpha()]
        if letters and sum(map(str.isascii, letters)) < _LEAST_ASCII * len(letters):
            raise InvalidAnswerError(f"the answer's string {number} is not in English: '{phrase[:60]}'")
    words = re.findall(r"[^\W\d_]+", " ".join(phrases).lower())
    other = sum(word in _OTHER for word in words)
    if other > max(1, sum(word in _ENGLISH for word in words)):
        raise InvalidAnswerError(f"the answer is not in English: '{phrases[0][:60]}'")
