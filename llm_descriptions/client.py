"""An asynchronous client that asks any OpenAI-compatible server for the descriptions of a class.

Invalid answers and failures that may pass are retried a limited number of times. Failures that no retry can fix (no
server, refused key, unknown model, no credit), a long wait and a spent budget end all calls at once.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from llm_descriptions.budget import (
    Budget,
    BudgetError,
    Usage,
    estimate_completion_tokens,
    estimate_prompt_tokens,
    least_tokens,
)
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import AnswerError, LongWaitError, Retry, ServerError
from llm_descriptions.prompts import MSTA_V1, PromptSet, Question
from llm_descriptions.reply import Reply, UnreadableError, parse_reply
from llm_descriptions.store import Provenance
from llm_descriptions.transport import NO_KEY, BoundedClient, refuse_open_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from openai.types.chat import ChatCompletionMessageParam

DEFAULT_URL = "https://api.openai.com/v1"
_MAX_ANSWERS = 3
"""Answers to one question, until one is valid."""
_MAX_ATTEMPTS = 6
"""Calls for one answer, until one does not fail."""
_LEAST_SHARE = 4
"""The budget is charged at least this part of a prompt's estimated tokens, whatever the server counts."""


@dataclass(frozen=True, slots=True)
class Description:
    """The sentences of one class, as the prompt set frames them, and their provenance."""

    texts: tuple[str, ...]
    provenance: Provenance


class DescriptionClient:
    """A client for one model at one server. Use one per event loop: ``async with DescriptionClient(...) as client``.

    Args:
        model: the model's name at the server.
        base_url: the server's address; default: ``OPENAI_BASE_URL``, else OpenAI's.
        prompts: the prompt set to ask with.
        concurrency: questions open at a time.
        budget: the most that the client may spend in all.
        timeout_s: seconds until a reply must be whole.
        first_delay_s: seconds to wait before the first retry; they double with each further one.
        api_key: the key, if another process has read it; default: ``OPENAI_API_KEY``. Messages never show it.
        too_long: says of a sentence whether to ask the model for a shorter one.
        allow_http: send a key to another machine without encryption.

    Raises:
        DescriptionError: ``concurrency``, the address or the key is invalid, or the key would travel in the clear.
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
        allow_http: bool = False,
    ) -> None:
        if concurrency < 1:
            raise DescriptionError(f"concurrency must be at least 1, got {concurrency}")
        url = server_url(base_url)
        self.model = model
        self.prompts = prompts
        self.server = failures.server_name(url)
        self.usage = Usage()
        key = api_key or key_from_environment(url)
        refuse_open_line(url, key, allow_http=allow_http)
        self._failures = failures.Classifier(self.server, model, key)
        self._first_delay_s = first_delay_s
        self._slots = asyncio.Semaphore(concurrency)
        self._gate = _Gate()
        self._budget = budget
        self._charged = Usage()  # as ``usage``, but a server cannot count less than was plainly sent
        self._largest_question = 0  # tokens, its answer included
        self._open_questions = 0
        self._json_mode = True
        self._system_role = True
        self._answered = False
        self._too_long = too_long
        self._openai = openai.AsyncOpenAI(
            api_key=key.get_secret_value(),
            base_url=url,
            timeout=timeout_s,
            max_retries=0,
            http_client=BoundedClient(timeout=timeout_s),
            default_headers={"Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._openai.close()

    async def check(self) -> None:
        """Raise ``ServerError`` within seconds if the server is unreachable or refuses the key.

        Any other reply to the request for the list of models passes: not every compatible server has that list.
        """
        try:
            await self._openai.models.with_raw_response.list(timeout=10.0)
        except (openai.APIConnectionError, openai.AuthenticationError) as error:
            raise self._failures.final(error) from None
        except openai.OpenAIError:
            return

    async def describe(self, question: Question) -> Description:
        """Ask for ``question.n`` distinct sentences about a class.

        Raises:
            AnswerError: this question got only invalid answers, or only failing calls.
            ServerError: no question can be answered.
            LongWaitError: the server asked, now or before, for a long wait.
            BudgetError: the budget is spent.
        """
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": self.prompts.instruction(question.kind, question.n)},
            {"role": "user", "content": self.prompts.question(question.label, question.kind, question.n)},
        ]
        spent = Usage()
        async with self._slots:
            started = time.monotonic()
            reply, texts = await self._valid_answer(messages, question, spent)
            provenance = Provenance(
                host=urlsplit(self.server).netloc,
                served_model=reply.model,
                prompt_tokens=spent.prompt_tokens,
                completion_tokens=spent.completion_tokens,
                calls=spent.calls,
                seconds=round(time.monotonic() - started, 3),
            )
        return Description(texts, provenance)

    async def _valid_answer(
        self, messages: list[ChatCompletionMessageParam], question: Question, spent: Usage
    ) -> tuple[Reply, tuple[str, ...]]:
        """Ask until an answer is valid; show the model its invalid answer and the reason."""
        for _ in range(_MAX_ANSWERS):
            reply = await self._reply(messages, question, spent)
            try:
                return reply, reply.sentences(self.prompts, question, self._too_long)
            except InvalidAnswerError as error:
                invalid = error
                messages[2:] = [
                    {"role": "assistant", "content": reply.content[:2000]},
                    {"role": "user", "content": f"That is not usable: {error}. Please answer again."},
                ]
        raise AnswerError(
            f"'{question.label}' ({question.kind}): {self.model} at {self.server} gave {_MAX_ANSWERS} unusable "
            f"answers; the last: {self._failures.masked_text(str(invalid))}"
        ) from invalid

    async def _reply(self, messages: list[ChatCompletionMessageParam], question: Question, spent: Usage) -> Reply:
        """Return one reply, valid or not, after as many attempts as are allowed."""
        attempt = 0
        while True:
            await self._gate.wait()
            try:
                return await self._send(messages, question.n, spent)
            except BudgetError as stop:
                self._gate.close(stop)
                raise
            except openai.OpenAIError as error:
                if self._adapts_to(error):
                    continue
                attempt += 1
                retry = self._judge(error, question.label, attempt)
            await self._back_off(retry, attempt)

    def _judge(self, error: openai.OpenAIError, label: str, attempt: int) -> Retry:
        """Return how to retry a failed call, or raise; an error that concerns all calls closes the gate."""
        try:
            retry = self._failures.judge(error, label, answered=self._answered)
            if attempt == _MAX_ATTEMPTS:
                raise self._failures.give_up(error, label, attempt)
        except (ServerError, LongWaitError) as final:
            self._gate.close(final)
            raise final from None
        except AnswerError as failed:
            raise failed from None
        return retry

    def _adapts_to(self, error: openai.OpenAIError) -> bool:
        """Leave out of all further requests what the server refuses; return whether that is why the call failed."""
        if self._json_mode and failures.refuses_json_mode(error):
            self._json_mode = False
            return True
        if self._system_role and failures.refuses_system_role(error):
            self._system_role = False
            return True
        return False

    async def _send(self, messages: list[ChatCompletionMessageParam], n: int, spent: Usage) -> Reply:
        prompt_tokens = estimate_prompt_tokens(*(str(message["content"]) for message in messages))
        estimated = (prompt_tokens, estimate_completion_tokens(n))
        self._largest_question = max(self._largest_question, sum(estimated))
        self._budget.check(self._charged, open_tokens=(self._open_questions + 1) * self._largest_question)
        self._open_questions += 1
        for usage in (spent, self.usage, self._charged):
            usage.calls += 1
        try:
            reply = await self._completion(messages)
        except openai.OpenAIError as error:
            if failures.may_cost(error):
                counted = error.tokens if isinstance(error, UnreadableError) else (None, None)
                self._add_tokens(spent, counted, estimated)
            raise
        finally:
            self._open_questions -= 1
        self._answered = True
        self._add_tokens(spent, reply.tokens, estimated, answered=len(reply.content))
        return reply

    def _add_tokens(
        self, spent: Usage, counted: tuple[int | None, int | None], estimated: tuple[int, int], *, answered: int = 0
    ) -> None:
        """Add a call's tokens, as the server counted them or else as estimated, to the question's and all usage.

        The budget is charged at least the tokens that the texts cannot be without; ``answered``: characters of the
        answer.
        """
        prompt, completion = (
            guess if count is None else count for count, guess in zip(counted, estimated, strict=True)
        )
        for usage in (spent, self.usage):
            usage.prompt_tokens += prompt
            usage.completion_tokens += completion
        self._charged.prompt_tokens += max(prompt, estimated[0] // _LEAST_SHARE)
        self._charged.completion_tokens += max(completion, least_tokens(answered))
        self._largest_question = max(self._largest_question, prompt + completion)

    async def _completion(self, messages: list[ChatCompletionMessageParam]) -> Reply:
        sent: list[Any] = list(messages)
        if not self._system_role:
            sent[:2] = [{"role": "user", "content": f"{sent[0]['content']}\n\n{sent[1]['content']}"}]
        options: Any = {"response_format": {"type": "json_object"}} if self._json_mode else {}
        ask = self._openai.chat.completions.with_raw_response.create
        response = (await ask(model=self.model, messages=sent, **options)).http_response
        return self._failures.masked(parse_reply(response.content, response.headers.get("content-type", "")))

    async def _back_off(self, retry: Retry, attempt: int) -> None:
        delay = retry.delay(attempt, self._first_delay_s)
        if retry.for_all:
            self._gate.opens_at = max(self._gate.opens_at, time.monotonic() + delay)
        else:
            await asyncio.sleep(delay)


@dataclass(slots=True)
class _Gate:
    """A gate before every call of a client: shut while the server asks to wait, closed for good by a final error."""

    opens_at: float = 0.0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    reason: DescriptionError | None = None

    async def wait(self) -> None:
        """Wait until the gate is open; raise the reason as soon as it is closed for good."""
        while (seconds := self.opens_at - time.monotonic()) > 0 and self.reason is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closed.wait(), seconds)
        if self.reason is not None:
            raise self.reason

    def close(self, reason: DescriptionError) -> None:
        """End all calls, waiting ones too."""
        self.reason = reason
        self.closed.set()


def server_url(base_url: str | None) -> str:
    """Return ``base_url``, or else ``OPENAI_BASE_URL``, or else OpenAI's address."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL


def key_from_environment(base_url: str | None) -> SecretStr:
    """Return ``OPENAI_API_KEY``, or a placeholder for servers without keys.

    Raises:
        DescriptionError: OpenAI needs a key and there is none, or the value cannot be a key; no message shows it.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    url = server_url(base_url)
    if not re.fullmatch(r"[!-~]*", key):
        raise DescriptionError(
            "OPENAI_API_KEY has a space, a line break or a character that is not ASCII: set it to the key alone"
        )
    if not key and urlsplit(url).hostname == urlsplit(DEFAULT_URL).hostname:
        raise DescriptionError(
            f"{DEFAULT_URL} needs a key: set the environment variable OPENAI_API_KEY,"
            " or name another server with --base-url"
        )
    return SecretStr(key or NO_KEY)
