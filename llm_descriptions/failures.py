"""Failures of a server: which are retried, which end one class, and which end the whole job."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import openai

from llm_descriptions.errors import DescriptionError
from llm_descriptions.reply import Reply, UnreadableError
from llm_descriptions.transport import is_secret

if TYPE_CHECKING:
    from pydantic import SecretStr

_MAX_WAIT_S = 120.0
_MAX_BACK_OFF_S = 30.0
_NO_MODEL = re.compile(r"model.*(not exist|not found|no such|unknown|invalid)|(unknown|invalid|no such).*model")
_NO_FORMAT = re.compile(r"response_format|json_object|json mode")
_NO_SYSTEM = re.compile(r"system role|system message|role.{0,20}system")
_NO_CREDIT = re.compile(r"insufficient[ _](quota|balance)|billing|exceeded your current quota")

_REFUSALS = {400, 415, 422, 500, 501}
"""Statuses that servers use to refuse a part of a request."""

_ASCII_ESCAPE = re.compile(r"\\u00([2-7][0-9a-fA-F])")
"""A character that JSON need not escape."""


class ServerError(DescriptionError):
    """No class can be described: the server is unreachable, or refuses the key or the model."""


class LongWaitError(DescriptionError):
    """The server asks for a longer wait than a run allows; earlier answers are kept."""


class AnswerError(DescriptionError):
    """One class could not be described; others may be."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The way to retry a failure that may pass.

    Attributes:
        after_s: seconds to wait, if the server named them.
        for_all: whether all calls wait, and not only the failed one.
    """

    after_s: float | None = None
    for_all: bool = False

    def delay(self, attempt: int, first_s: float) -> float:
        """Return the seconds to wait after the failed ``attempt`` (1, 2, ...).

        They are random, double with each attempt from ``first_s``, and are never less than the server asked for.
        """
        longest: float = min(first_s * 2 ** (attempt - 1), _MAX_BACK_OFF_S)
        return max(self.after_s or 0.0, longest * random.uniform(0.5, 1.0))


def server_name(url: str) -> str:
    """Return ``url`` for messages, without user, password and query.

    Raises:
        DescriptionError: ``url`` is not an http(s) address.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        without_login = url.rpartition("@")[2]
        raise DescriptionError(f"'{without_login}' is not a server address; give --base-url http://HOST:PORT/v1")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def refuses_json_mode(error: openai.OpenAIError) -> bool:
    """Return whether the server does not support ``response_format``, or not the format ``json_object``."""
    return _status(error) in _REFUSALS and _NO_FORMAT.search(_start(error)) is not None


def refuses_system_role(error: openai.OpenAIError) -> bool:
    """Return whether the model's chat template has no system message (Gemma's has none)."""
    return _status(error) in _REFUSALS and _NO_SYSTEM.search(_start(error)) is not None


def _start(error: openai.OpenAIError) -> str:
    return str(error)[:10_000].lower()


def may_cost(error: openai.OpenAIError) -> bool:
    """Return whether the model may have worked on a failed call: the server got the question and did not refuse it."""
    if isinstance(error, UnreadableError):
        return not error.page
    return isinstance(error, openai.APIConnectionError) and not _is_unconnected(error)


class Classifier:
    """The judge of failures of one server and model; its messages never show the key.

    Raise its errors ``from None``: the library's own error may quote a server that echoes the key.
    """

    def __init__(self, server: str, model: str, key: SecretStr) -> None:
        self._server = server
        self._model = model
        self._key = key

    def judge(self, error: openai.OpenAIError, label: str, *, answered: bool) -> Retry:
        """Decide how to retry a failed call about the class ``label``.

        Args:
            error: the failure.
            label: the class of the question.
            answered: the server has answered another question, so a 403 is about this question and not the key.

        Raises:
            ServerError: no question can be answered.
            LongWaitError: the server asks for too long a wait.
            AnswerError: this question cannot be answered.
        """
        if isinstance(error, openai.APIConnectionError | UnreadableError):
            return Retry()
        message, status = self._message(error), _status(error)
        refuses_key = status == 401 or (status == 403 and not answered)
        no_credit = status == 402 or (status == 429 and _NO_CREDIT.search(message.lower()))
        no_model = status == 400 and _NO_MODEL.search(message.lower())
        if refuses_key or no_credit or no_model or status == 404:
            raise self.final(error)
        if 300 <= status < 400:
            raise self.final(error)
        if status not in {408, 409, 425, 429} and status < 500:
            raise AnswerError(f"'{label}': {self._server} refused the question: {message}")
        after_s = _retry_after(error)
        if after_s is not None and after_s > _MAX_WAIT_S:
            raise LongWaitError(f"{self._server} asks to wait {after_s:.0f} s")
        return Retry(after_s, for_all=status == 429)

    def give_up(self, error: openai.OpenAIError, label: str, attempts: int) -> DescriptionError:
        """Return the error to raise after the last attempt."""
        if _is_unconnected(error) or (isinstance(error, UnreadableError) and error.page):
            return self.final(error)
        return AnswerError(f"'{label}': no reply from {self._server} in {attempts} attempts: {self._message(error)}")

    def final(self, error: openai.OpenAIError) -> ServerError:
        """Return the error that ends the job, with the failure, the server, the model and the remedy."""
        message, status = self._message(error), _status(error)
        where = f"{self._server} (model '{self._model}')"
        if isinstance(error, openai.APIConnectionError):
            return ServerError(f"cannot reach {where}: {message}; is it running, and is --base-url right?")
        if status in {401, 403}:
            return ServerError(f"{where} refuses the key: {message}; set OPENAI_API_KEY to a valid key")
        if isinstance(error, openai.APIStatusError) and 300 <= status < 400:
            target = self.masked_text(error.response.headers.get("location", "elsewhere"))[:200]
            return ServerError(f"{where} sends on to {target}; if you trust that address, give it with --base-url")
        if status == 402 or _NO_CREDIT.search(message.lower()):
            return ServerError(f"{where} has no credit left: {message}")
        if _NO_MODEL.search(message.lower()):
            return ServerError(f"{where} does not know the model: {message}; give one that it serves with --model")
        return ServerError(f"{where} has no chat completions: {message}; does --base-url lack a '/v1'?")

    def masked(self, reply: Reply) -> Reply:
        """Return the reply with the key masked, also where its content, JSON itself, writes it with escapes."""
        return replace(
            reply,
            content=self.masked_text(_ASCII_ESCAPE.sub(_unescaped, reply.content)),
            refusal=self.masked_text(reply.refusal),
            finish=self.masked_text(reply.finish),
            model=self.masked_text(reply.model),
        )

    def masked_text(self, text: str) -> str:
        """Return a text with the key masked in any case, and without halves of characters, which no file takes."""
        key = self._key.get_secret_value()
        text = text.encode("utf-8", "replace").decode()
        return re.sub(re.escape(key), "***", text, flags=re.IGNORECASE) if is_secret(self._key) else text

    def _message(self, error: openai.OpenAIError) -> str:
        """Return the server's own message on one line, shortened, with the key masked."""
        body = error.body if isinstance(error, openai.APIError) else None
        message = body.get("message") if isinstance(body, dict) else None
        cause = error.__cause__
        if not isinstance(message, str) and cause is not None:
            message = f"{type(cause).__name__}: {cause}".rstrip(": ")
        text = message if isinstance(message, str) and message else str(error)
        return self.masked_text(" ".join(text.split()))[:200]


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return escape[0] if character in '"\\\x7f' else character


def _status(error: openai.OpenAIError) -> int:
    return error.status_code if isinstance(error, openai.APIStatusError) else 0


def _is_unconnected(error: openai.OpenAIError) -> bool:
    """Return whether no connection was made, as opposed to one that was cut or slow."""
    return type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout"}


def _retry_after(error: openai.OpenAIError) -> float | None:
    """Return the seconds of a Retry-After header (a number or an HTTP date), or None without a valid one."""
    value = error.response.headers.get("retry-after") if isinstance(error, openai.APIStatusError) else None
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError, OSError):
        return None
