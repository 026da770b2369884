"""Which failures of a server are waited out, which end one class, and which end the whole job."""

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

if TYPE_CHECKING:
    from pydantic import SecretStr

_LONGEST_WAIT_S = 120.0
_LONGEST_BACK_OFF_S = 30.0
_NO_MODEL = re.compile(r"model.*(not exist|not found|no such|unknown|invalid)|(unknown|invalid|no such).*model")
_NO_FORMAT = re.compile(r"response_format|json_object|json mode")
_NO_SYSTEM = re.compile(r"system role|system message|role.{0,20}system")
_REFUSING = {400, 415, 422, 500, 501}
# A placeholder such as "EMPTY" is no secret, and masking it would spoil words.
_SHORTEST_KEY = 8
_NO_CREDIT = re.compile(r"insufficient[ _](quota|balance)|billing|exceeded your current quota")


class ServerError(DescriptionError):
    """No class can be described: there is no server, or it refuses the key or the model."""


class LaterError(DescriptionError):
    """The server asks to wait for longer than a run waits; what was answered before stays."""


class AnswerError(DescriptionError):
    """One class could not be described; others may be."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A failure that may pass: after ``after_s`` if the server said so; ``for_all``: every call waits."""

    after_s: float | None = None
    for_all: bool = False

    def delay(self, attempt: int, first_s: float) -> float:
        """Return the seconds to wait after failed ``attempt`` (1, 2, ...): doubling, random, no less than told."""
        longest: float = min(first_s * 2 ** (attempt - 1), _LONGEST_BACK_OFF_S)
        return max(self.after_s or 0.0, longest * random.uniform(0.5, 1.0))


def server_name(url: str) -> str:
    """Return ``url`` for people: without user, password or query. Raises for what is no http(s) address."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise DescriptionError(f"'{_no_login(url)}' is no server address; give --base-url http://HOST:PORT/v1")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _no_login(url: str) -> str:
    return url.rpartition("@")[2]


def refuses_json_mode(error: openai.OpenAIError) -> bool:
    """Return whether the server says that it does not know ``response_format``, or not with ``json_object``."""
    return _status(error) in _REFUSING and _NO_FORMAT.search(str(error).lower()) is not None


def refuses_system_role(error: openai.OpenAIError) -> bool:
    """Return whether the server says that the model's chat template has no system message (Gemma's has none)."""
    return _status(error) in _REFUSING and _NO_SYSTEM.search(str(error).lower()) is not None


def may_cost(error: openai.OpenAIError) -> bool:
    """Return whether the model may have worked on a failed call: the question arrived, and no status refused it."""
    if isinstance(error, UnreadableError):
        return not error.page
    return isinstance(error, openai.APIConnectionError) and not _refused(error)


def _status(error: openai.OpenAIError) -> int:
    return error.status_code if isinstance(error, openai.APIStatusError) else 0


def _refused(error: openai.OpenAIError) -> bool:
    """Return whether no connection was made at all (rather than cut, or slow)."""
    return type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout"}


def _retry_after(error: openai.OpenAIError) -> float | None:
    """Return the seconds of a Retry-After header (a number or an HTTP date), if there is a readable one."""
    value = error.response.headers.get("retry-after") if isinstance(error, openai.APIStatusError) else None
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


class Classifier:
    """Judges failures for one server and model, and words them without ever showing the key.

    What it raises should be raised ``from None``: the library's own error may hold the server's echo of the key.
    """

    def __init__(self, server: str, model: str, key: SecretStr) -> None:
        self._server = server
        self._model = model
        self._key = key

    def judge(self, error: openai.OpenAIError, label: str, *, answered: bool) -> Retry:
        """Return how to retry; raises ``ServerError``, ``LaterError`` or ``AnswerError`` where that is of no use.

        ``answered``: the server has answered another question, so that a 403 is about this one, not the key.
        """
        said, status = self._said(error), _status(error)
        if isinstance(error, openai.APIConnectionError | UnreadableError):
            return Retry()
        if (
            status in {401, 402, 404}
            or (status == 403 and not answered)
            or (status == 429 and _NO_CREDIT.search(said.lower()))
        ):
            raise self.final(error)
        if status == 400 and _NO_MODEL.search(said.lower()):
            raise self.final(error)
        if status not in {408, 409, 425, 429} and status < 500:
            raise AnswerError(f"'{label}': {self._server} refused the question: {said}")
        after = _retry_after(error)
        if after is not None and after > _LONGEST_WAIT_S:
            raise LaterError(f"{self._server} asks to wait {after:.0f} s")
        return Retry(after, for_all=status == 429)

    def given_up(self, error: openai.OpenAIError, label: str, attempts: int) -> DescriptionError:
        """Return the error after the last attempt."""
        if _refused(error) or (isinstance(error, UnreadableError) and error.page):
            return self.final(error)
        return AnswerError(f"'{label}': no reply from {self._server} in {attempts} attempts: {self._said(error)}")

    def final(self, error: openai.OpenAIError) -> ServerError:
        """Return the error that ends the job: what failed, at which server, for which model, what to do."""
        said, status = self._said(error), _status(error)
        where = f"{self._server} (model '{self._model}')"
        if isinstance(error, openai.APIConnectionError):
            return ServerError(f"cannot reach {where}: {said}; is it running, and is --base-url right?")
        if status in {401, 403}:
            return ServerError(f"{where} refuses the key: {said}; set OPENAI_API_KEY to a valid key")
        if status == 402 or _NO_CREDIT.search(said.lower()):
            return ServerError(f"{where} says there is no credit left: {said}")
        if _NO_MODEL.search(said.lower()):
            return ServerError(f"{where} does not know the model: {said}; give one that it serves with --model")
        return ServerError(f"{where} has no chat completions: {said}; does --base-url lack a '/v1'?")

    def _said(self, error: openai.OpenAIError) -> str:
        """Return the server's own words, on one line, short, and without the key should it be echoed."""
        body = error.body if isinstance(error, openai.APIError) else None
        message = body.get("message") if isinstance(body, dict) else None
        cause = error.__cause__
        if message is None and cause is not None:
            message = f"{type(cause).__name__}: {cause}".rstrip(": ")
        return self.mask(" ".join(str(message or error).split()))[:200]

    def masked(self, reply: Reply) -> Reply:
        """Return the reply without the key, should it hold one."""
        return replace(reply, content=self.mask(reply.content), refusal=self.mask(reply.refusal))

    def mask(self, text: str) -> str:
        """Return ``text`` without the key, should the server echo it."""
        key = self._key.get_secret_value()
        return text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text
