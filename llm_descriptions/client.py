"""An asynchronous client that asks any OpenAI-compatible server for the descriptions of a class.

Everything that is wrong with one answer or for a while is retried a bounded number of times; what no retry
mends (no server, key refused, unknown model, no credit) ends all calls of the client at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import openai
from pydantic import SecretStr

from llm_descriptions import failures
from llm_descriptions.answer import InvalidAnswerError, read_answer
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import AnswerError, Retry, ServerError
from llm_descriptions.prompts import MSTA_V1, PromptSet
from llm_descriptions.store import Provenance

if TYPE_CHECKING:
    from types import TracebackType

    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

DEFAULT_URL = "https://api.openai.com/v1"
_ASKS = 3
_ATTEMPTS = 6


@dataclass(slots=True)
class Usage:
    """What was spent: HTTP calls (failed ones too) and tokens as the server counted them."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Described:
    """The sentences of one class, in the style of the prompt set, and where they came from."""

    texts: tuple[str, ...]
    provenance: Provenance


@dataclass(slots=True)
class _Gate:
    """What the calls of one client share: a pause that a server asked for, and an end that is final."""

    opens_at: float = 0.0
    end: asyncio.Event = field(default_factory=asyncio.Event)
    reason: ServerError | None = None

    async def passed(self) -> None:
        """Return once the pause is over; raises the reason as soon as there is an end."""
        while (wait := self.opens_at - time.monotonic()) > 0 and self.reason is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.end.wait(), wait)
        if self.reason is not None:
            raise self.reason

    def close(self, reason: ServerError) -> None:
        """End all calls, those that wait too."""
        self.reason = reason
        self.end.set()


class DescriptionClient:
    """Asks ``model`` at ``base_url`` (default: ``OPENAI_BASE_URL``, else OpenAI), ``concurrency`` at a time.

    The key comes from the environment (``OPENAI_API_KEY``; servers without keys get a placeholder) or, where
    another process read it, from ``api_key``; it is masked in every message. Use one client per event loop,
    as ``async with DescriptionClient(...) as client``.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        prompts: PromptSet = MSTA_V1,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        first_delay_s: float = 0.5,
        api_key: SecretStr | None = None,
    ) -> None:
        if concurrency < 1:
            raise DescriptionError(f"concurrency must be at least 1, got {concurrency}")
        url = base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        self.model = model
        self.prompts = prompts
        self.server = failures.server_name(url)
        self.usage = Usage()
        key = api_key or key_from_environment(url)
        self._failures = failures.Classifier(self.server, model, key)
        self._first_delay_s = first_delay_s
        self._slots = asyncio.Semaphore(concurrency)
        self._gate = _Gate()
        self._json_mode = True
        self._openai = openai.AsyncOpenAI(
            api_key=key.get_secret_value(), base_url=url, timeout=timeout_s, max_retries=0
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._openai.close()

    async def check(self) -> None:
        """Raise ``ServerError`` within seconds if there is no server, or it refuses the key.

        Any other reply to the list of models passes: not every compatible server has that list.
        """
        try:
            await self._openai.models.list(timeout=10.0)
        except (openai.APIConnectionError, openai.AuthenticationError) as error:
            raise self._failures.final(error) from error
        except openai.OpenAIError:
            return

    async def describe(self, label: str, kind: str, n: int) -> Described:
        """Return ``n`` distinct sentences of ``kind`` about the action ``label``.

        Raises ``AnswerError`` if this class cannot be answered (invalid answers, or failing calls, after the
        allowed number of each) and ``ServerError`` if no class can.
        """
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": self.prompts.instruction(kind, n)},
            {"role": "user", "content": self.prompts.question(label, kind, n)},
        ]
        spent = Usage()
        async with self._slots:
            for ask in range(1, _ASKS + 1):
                reply = await self._call(messages, label)
                if reply.usage is not None:
                    for tally in (spent, self.usage):
                        tally.prompt_tokens += reply.usage.prompt_tokens
                        tally.completion_tokens += reply.usage.completion_tokens
                content = reply.choices[0].message.content if reply.choices else None
                try:
                    texts = read_answer(content, self.prompts, label, kind, n)
                except InvalidAnswerError as error:
                    if ask == _ASKS:
                        raise AnswerError(
                            f"'{label}' ({kind}): {self.model} at {self.server} gave {_ASKS} unusable"
                            f" answers; the last: {error}"
                        ) from error
                    messages[2:] = [
                        {"role": "assistant", "content": (content or "")[:2000]},
                        {"role": "user", "content": f"That is not usable: {error}. Please answer again."},
                    ]
                    continue
                return Described(texts, self._provenance(spent))
        raise AssertionError("unreachable: the last ask returns or raises")

    def _provenance(self, spent: Usage) -> Provenance:
        return Provenance(
            host=urlsplit(self.server).netloc,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
        )

    async def _call(self, messages: list[ChatCompletionMessageParam], label: str) -> ChatCompletion:
        """Return one reply, of whatever content, after as many attempts as are allowed."""
        attempt = 0
        while True:
            await self._gate.passed()
            try:
                return await self._send(messages)
            except openai.OpenAIError as error:
                if self._json_mode and failures.refuses_json_mode(error):
                    self._json_mode = False
                    continue
                attempt += 1
                try:
                    retry = self._failures.judge(error, label)
                    if attempt == _ATTEMPTS:
                        raise self._failures.given_up(error, label, attempt) from error
                except ServerError as final:
                    self._gate.close(final)
                    raise
                await self._back_off(retry, attempt)

    async def _send(self, messages: list[ChatCompletionMessageParam]) -> ChatCompletion:
        self.usage.calls += 1
        if not self._json_mode:
            return await self._openai.chat.completions.create(model=self.model, messages=messages)
        return await self._openai.chat.completions.create(
            model=self.model, messages=messages, response_format={"type": "json_object"}
        )

    async def _back_off(self, retry: Retry, attempt: int) -> None:
        delay = retry.delay(attempt, self._first_delay_s)
        if retry.for_all:
            self._gate.opens_at = max(self._gate.opens_at, time.monotonic() + delay)
        else:
            await asyncio.sleep(delay)


def key_from_environment(base_url: str | None) -> SecretStr:
    """Return ``OPENAI_API_KEY`` or a placeholder; raises ``DescriptionError`` if OpenAI itself needs one."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    url = base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    if not key and urlsplit(url).hostname == urlsplit(DEFAULT_URL).hostname:
        raise DescriptionError(
            f"{DEFAULT_URL} needs a key: set the environment variable OPENAI_API_KEY,"
            " or name another server with --base-url"
        )
    return SecretStr(key or "no-key-needed")
