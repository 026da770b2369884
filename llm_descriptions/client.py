"""An asynchronous client that asks any OpenAI-compatible server for the descriptions of a class.

Everything that is wrong with one answer or for a while is retried a bounded number of times; what no retry
mends (no server, key refused, unknown model, no credit), a long wait and a spent budget end all calls at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import openai
from pydantic import SecretStr

from llm_descriptions import failures
from llm_descriptions.answer import InvalidAnswerError
from llm_descriptions.budget import Budget, BudgetError, Usage, completion_tokens, prompt_tokens
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import AnswerError, LaterError, Retry, ServerError
from llm_descriptions.prompts import MSTA_V1, PromptSet
from llm_descriptions.reply import Reply, UnreadableError, read_reply
from llm_descriptions.store import Provenance

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from openai.types.chat import ChatCompletionMessageParam

DEFAULT_URL = "https://api.openai.com/v1"
_ASKS = 3
_ATTEMPTS = 6


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
    reason: DescriptionError | None = None

    async def passed(self) -> None:
        """Return once the pause is over; raises the reason as soon as there is an end."""
        while (wait := self.opens_at - time.monotonic()) > 0 and self.reason is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.end.wait(), wait)
        if self.reason is not None:
            raise self.reason

    def close(self, reason: DescriptionError) -> None:
        """End all calls, those that wait too."""
        self.reason = reason
        self.end.set()


class DescriptionClient:
    """Asks ``model`` at ``base_url`` (default: ``OPENAI_BASE_URL``, else OpenAI), ``concurrency`` at a time.

    The key comes from the environment (``OPENAI_API_KEY``; servers without keys get a placeholder) or, where
    another process read it, from ``api_key``; it is masked in every message. Use one client per event loop,
    as ``async with DescriptionClient(...) as client``; ``budget`` bounds what it spends in all. ``too_long``
    says of a sentence whether the model is to be asked for a shorter one.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        prompts: PromptSet = MSTA_V1,
        concurrency: int = 8,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        timeout_s: float = 120.0,
        first_delay_s: float = 0.5,
        api_key: SecretStr | None = None,
        too_long: Callable[[str], bool] | None = None,
    ) -> None:
        if concurrency < 1:
            raise DescriptionError(f"concurrency must be at least 1, got {concurrency}")
        url = server_url(base_url)
        self.model = model
        self.prompts = prompts
        self.server = failures.server_name(url)
        self.usage = Usage()
        key = api_key or key_from_environment(url)
        self._failures = failures.Classifier(self.server, model, key)
        self._first_delay_s = first_delay_s
        self._slots = asyncio.Semaphore(concurrency)
        self._gate = _Gate()
        self._budget = budget
        self._largest = self._open = 0
        self._json_mode = self._system_role = True
        self._answered = False
        self._too_long = too_long
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
            raise self._failures.final(error) from None
        except (openai.OpenAIError, json.JSONDecodeError):
            return

    async def describe(self, label: str, kind: str, n: int) -> Described:
        """Return ``n`` distinct sentences of ``kind`` about the action ``label``.

        Raises ``AnswerError`` if this class cannot be answered (invalid answers, or failing calls, after the
        allowed number of each), ``ServerError`` if no class can, ``LaterError`` once the server asks for a long
        wait, and ``BudgetError`` once the budget is spent.
        """
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": self.prompts.instruction(kind, n)},
            {"role": "user", "content": self.prompts.question(label, kind, n)},
        ]
        spent = Usage()
        async with self._slots:
            started = time.monotonic()
            for ask in range(1, _ASKS + 1):
                reply = await self._call(messages, label, n, spent)
                try:
                    texts = reply.sentences(self.prompts, label, kind, n, self._too_long)
                except InvalidAnswerError as error:
                    if ask == _ASKS:
                        raise AnswerError(
                            f"'{label}' ({kind}): {self.model} at {self.server} gave {_ASKS} unusable"
                            f" answers; the last: {error}"
                        ) from error
                    messages[2:] = [
                        {"role": "assistant", "content": reply.content[:2000]},
                        {"role": "user", "content": f"That is not usable: {error}. Please answer again."},
                    ]
                    continue
                provenance = Provenance(
                    host=urlsplit(self.server).netloc,
                    served_model=reply.model,
                    prompt_tokens=spent.prompt_tokens,
                    completion_tokens=spent.completion_tokens,
                    calls=spent.calls,
                    seconds=round(time.monotonic() - started, 3),
                )
                return Described(texts, provenance)
        raise AssertionError("unreachable: the last ask returns or raises")

    async def _call(self, messages: list[ChatCompletionMessageParam], label: str, n: int, spent: Usage) -> Reply:
        """Return one reply, of whatever content, after as many attempts as are allowed."""
        attempt = 0
        while True:
            await self._gate.passed()
            try:
                return await self._send(messages, n, spent)
            except BudgetError as stop:
                self._gate.close(stop)
                raise
            except openai.OpenAIError as error:
                if self._learns(error):
                    continue
                attempt += 1
                try:
                    retry = self._failures.judge(error, label, answered=self._answered)
                    if attempt == _ATTEMPTS:
                        raise self._failures.given_up(error, label, attempt)
                except (ServerError, LaterError) as final:
                    self._gate.close(final)
                    raise final from None
                except AnswerError as failed:
                    raise failed from None
                await self._back_off(retry, attempt)

    def _learns(self, error: openai.OpenAIError) -> bool:
        """Return whether the server refuses a part of the request that it will not be sent again."""
        if self._json_mode and failures.refuses_json_mode(error):
            self._json_mode = False
            return True
        if self._system_role and failures.refuses_system_role(error):
            self._system_role = False
            return True
        return False

    async def _send(self, messages: list[ChatCompletionMessageParam], n: int, spent: Usage) -> Reply:
        asked = prompt_tokens(*(str(message["content"]) for message in messages))
        self._largest = max(self._largest, asked + completion_tokens(n))
        self._budget.check(self.usage, coming=(self._open + 1) * self._largest)
        self._open += 1
        for tally in (spent, self.usage):
            tally.calls += 1
        try:
            reply = await self._completion(messages)
        except openai.OpenAIError as error:
            if failures.may_cost(error):
                counted = error.tokens if isinstance(error, UnreadableError) else (None, None)
                self._charge(spent, counted, (asked, completion_tokens(n)))
            raise
        finally:
            self._open -= 1
        self._answered = True
        self._charge(spent, reply.tokens, (asked, completion_tokens(n)))
        return reply

    def _charge(self, spent: Usage, counted: tuple[int | None, int | None], estimated: tuple[int, int]) -> None:
        """Add a call's tokens as the server counted them, else as estimated, to both tallies."""
        sizes = [rule if count is None else count for count, rule in zip(counted, estimated, strict=True)]
        for tally in (spent, self.usage):
            tally.prompt_tokens += sizes[0]
            tally.completion_tokens += sizes[1]
        self._largest = max(self._largest, sum(sizes))

    async def _completion(self, messages: list[ChatCompletionMessageParam]) -> Reply:
        sent: list[Any] = list(messages)
        if not self._system_role:
            sent[:2] = [{"role": "user", "content": f"{sent[0]['content']}\n\n{sent[1]['content']}"}]
        form: Any = {"response_format": {"type": "json_object"}} if self._json_mode else {}
        try:
            reply = await self._openai.chat.completions.create(model=self.model, messages=sent, **form)
        except json.JSONDecodeError as error:
            raise UnreadableError(f"a reply that is not valid JSON: {error}") from None
        return self._failures.masked(read_reply(reply))

    async def _back_off(self, retry: Retry, attempt: int) -> None:
        delay = retry.delay(attempt, self._first_delay_s)
        if retry.for_all:
            self._gate.opens_at = max(self._gate.opens_at, time.monotonic() + delay)
        else:
            await asyncio.sleep(delay)


def server_url(base_url: str | None) -> str:
    """Return ``base_url``, else ``OPENAI_BASE_URL``, else OpenAI's."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL


def key_from_environment(base_url: str | None) -> SecretStr:
    """Return ``OPENAI_API_KEY`` or a placeholder.

    Raises ``DescriptionError`` if OpenAI itself needs one, and for what cannot be a key, which no message shows.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    url = server_url(base_url)
    if not re.fullmatch(r"[!-~]*", key):
        raise DescriptionError(
            "OPENAI_API_KEY holds a space, a line break or a character that is not ASCII: set it to the key alone"
        )
    if not key and urlsplit(url).hostname == urlsplit(DEFAULT_URL).hostname:
        raise DescriptionError(
            f"{DEFAULT_URL} needs a key: set the environment variable OPENAI_API_KEY,"
            " or name another server with --base-url"
        )
    return SecretStr(key or "no-key-needed")
