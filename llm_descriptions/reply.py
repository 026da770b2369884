"""A server's reply to a chat completion; "OpenAI-compatible" servers differ in its shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import openai

from llm_descriptions.answer import InvalidAnswerError, read_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_descriptions.prompts import PromptSet, Question


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


def read_reply(reply: Any) -> Reply:
    """Extract the text and the metadata of a reply.

    The client library does not check types: ``content`` may be null or a list of parts (reasoning parts are left out),
    ``choices`` and ``usage`` may be missing, and an error may come with status 200.

    Raises:
        UnreadableError: the reply is not a chat completion.
    """
    if isinstance(reply, str):
        raise UnreadableError("a page instead of a chat completion", page=True)
    usage = getattr(reply, "usage", None)
    tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if error := getattr(reply, "error", None):
        reason = error.get("message") if isinstance(error, dict) else error
        raise UnreadableError(f"an error instead of an answer: {reason}", tokens=tokens)
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        raise UnreadableError("a reply without a message", tokens=tokens)
    return Reply(
        content=_text(getattr(message, "content", None)),
        refusal=_text(getattr(message, "refusal", None)),
        finish=str(getattr(choice, "finish_reason", None) or ""),
        model=str(getattr(reply, "model", None) or ""),
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _count(usage: Any, name: str) -> int | None:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) else None
