"""A server's reply to a chat completion; "OpenAI-compatible" servers differ in its shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import openai

from llm_descriptions.answer import InvalidAnswerError, read_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_descriptions.prompts import PromptSet, Question

_MOST_TOKENS = 100_000_000
_LONGEST_MODEL = 300


class UnreadableError(openai.OpenAIError):
    """A reply with status 200 that is not a chat completion.

    Attributes:
        page: the reply is a web page or other text, so the address is probably not an API.
        tokens: prompt and completion tokens, each None if the server did not count them.
    """

    def __init__(
        self, message: str, *, page: bool = False, tokens: tuple[int | None, int | None] = (None, None)
    ) -> None:
        super().__init__(message)
        self.page = page
        self.tokens = tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """The text and the metadata of one reply; tokens are None if the server does not count them."""

    content: str
    refusal: str
    finish: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Prompt and completion tokens."""
        return self.prompt_tokens, self.completion_tokens

    def sentences(
        self, prompts: PromptSet, question: Question, too_long: Callable[[str], bool] | None = None
    ) -> tuple[str, ...]:
        """Return the sentences to store.

        Raises:
            InvalidAnswerError: the reply has no usable answer; the message has the server's own reason if it gave one.
        """
        try:
            return read_answer(self.content, prompts, question, too_long=too_long)
        except InvalidAnswerError:
            if self.refusal:
                raise InvalidAnswerError(f"the answer is a refusal: '{self.refusal[:100]}'") from None
            if self.finish == "content_filter":
                raise InvalidAnswerError("the answer was withheld by the server's content filter") from None
            if self.finish == "length":
                raise InvalidAnswerError("the answer was cut off at the server's limit of tokens") from None
            raise


def parse_reply(body: bytes, kind: str) -> Reply:
    """Parse the body of a reply with status 200; ``kind`` is its content type.

    Raises:
        UnreadableError: it is not a chat completion in JSON.
    """
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError) as error:
        if not kind.partition(";")[0].strip().lower().endswith("json"):
            raise UnreadableError("a page instead of a chat completion", page=True) from None
        raise UnreadableError(f"a reply that is not valid JSON: {str(error)[:200]}") from None
    return read_reply(plain)


def read_reply(plain: Any) -> Reply:
    """Extract the text and the metadata of a reply from its JSON value; nothing in it is believed unchecked.

    ``content`` may be null or a list of parts (reasoning parts are left out), ``choices`` and ``usage`` may be missing,
    and an error may come with status 200.

    Raises:
        UnreadableError: the reply is not a chat completion, or has a model name that there cannot be.
    """
    if not isinstance(plain, dict):
        raise UnreadableError("a reply that is no JSON object")
    tokens = _count(plain.get("usage"), "prompt_tokens"), _count(plain.get("usage"), "completion_tokens")
    if error := plain.get("error"):
        reason = error.get("message") if isinstance(error, dict) else error
        said = reason if isinstance(reason, str) else "it gives no reason"
        raise UnreadableError(f"an error instead of an answer: {said}", tokens=tokens)
    choices = plain.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise UnreadableError("a reply without a message", tokens=tokens)
    finish = choice.get("finish_reason")
    return Reply(
        content=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        finish=finish if isinstance(finish, str) else "",
        model=_model(plain.get("model")),
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _model(name: Any) -> str:
    """Return the server's name of the model; "" if it gives none."""
    if name is None:
        return ""
    if not isinstance(name, str):
        raise UnreadableError(f"a reply with a model name of the type {type(name).__name__}")
    if len(name) > _LONGEST_MODEL:
        raise UnreadableError(f"a reply with a model name of {len(name)} characters")
    if unprintable := [character for character in name if not character.isprintable()]:
        raise UnreadableError(f"a reply with a model name that holds the character U+{ord(unprintable[0]):04X}")
    return name


def _count(usage: Any, name: str) -> int | None:
    """Return a count of tokens, or None if the server does not count them, or counts what cannot be.

    An answer that is paid for is not thrown away for its count.
    """
    value: Any = usage.get(name) if isinstance(usage, dict) else None
    possible = type(value) in {int, float} and 0 <= value <= _MOST_TOKENS  # NaN is neither
    return int(value) if possible else None
