"""The language-model stage: a Ray Data pipeline from classes without descriptions to a filled store.

The work is waiting for a server, so one actor with one event loop keeps ``concurrency`` questions open for as
long as there are any; it sits on the driver's node, where the store is, and stores each answer as it comes.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llm_descriptions.budget import Budget, BudgetError, Estimate, Past, estimate
from llm_descriptions.client import DescriptionClient, key_from_environment, server_url
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import ServerError, server_name
from llm_descriptions.prompts import MSTA_V1, prompt_set
from llm_descriptions.store import DescriptionStore, Key
from pipelines.ray_session import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from pydantic import SecretStr

_PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """One class to be described, ``n`` times, in one way."""

    label: str
    kind: str
    n: int


@dataclass(frozen=True, slots=True)
class Server:
    """The language model that answers, what it is asked with, how much at a time and how much in all."""

    model: str
    base_url: str | None = None
    concurrency: int = 8
    prompt_id: str = MSTA_V1.id
    budget: Budget = field(default_factory=Budget)

    def key(self, question: Question) -> Key:
        """Return the key under which the store has the answer."""
        return Key(question.label, question.kind, self.prompt_id, self.model, question.n)

    def client(self, api_key: SecretStr) -> DescriptionClient:
        """Return a client; the key travels by itself, so that nothing that shows a server shows it."""
        return DescriptionClient(
            self.model,
            base_url=self.base_url,
            prompts=prompt_set(self.prompt_id),
            concurrency=self.concurrency,
            budget=self.budget,
            api_key=api_key,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the questions: ``failed`` says why, a line a question; ``stopped`` why ``unasked`` are left."""

    stored: int = 0
    failed: tuple[str, ...] = ()
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unasked: int = 0
    stopped: str = ""


class AskDescriptions:
    """A ``map_batches`` actor: questions (label, kind, n) in, the same with ``error`` and ``usage`` out."""

    def __init__(self, store: str, server: Server, api_key: SecretStr) -> None:
        self._store = DescriptionStore(store)
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._client = server.client(api_key)
        self._restarted = _restarted() and server.budget != Budget()

    def __call__(self, batch: pa.Table) -> dict[str, list[Any]]:
        """Ask all questions of a batch at once; the client bounds how many are open."""
        questions = [Question(**row) for row in batch.to_pylist()]
        before = self._spent()
        with self._store.kept_open():
            replies = self._loop.run_until_complete(self._ask_all(questions))
        # What was spent belongs to the batch; it stands in its first row.
        spent = [after - start for after, start in zip(self._spent(), before, strict=True)]
        return {
            "error": [error for error, _ in replies],
            "ends": [ends for _, ends in replies],
            "usage": [spent, *[[0, 0, 0]] * (len(questions) - 1)],
        }

    async def _ask_all(self, questions: Sequence[Question]) -> list[tuple[str, str]]:
        return await asyncio.gather(*(self._ask(question) for question in questions))

    async def _ask(self, question: Question) -> tuple[str, str]:
        """Return what went wrong, and what it ends: one "class", "all" for want of a server, the "budget"."""
        key = self._server.key(question)
        if self._store.get(key) is not None:  # this actor was restarted, or another job was quicker
            return "", ""
        if self._restarted:
            return "the process that asks was lost, and with it the count of what it had spent", "budget"
        try:
            described = await self._client.describe(question.label, question.kind, question.n)
            self._store.put(key, described.texts, described.provenance)
        except BudgetError as error:
            return str(error), "budget"
        except DescriptionError as error:
            return str(error), "all" if isinstance(error, ServerError) else "class"
        return "", ""

    def _spent(self) -> tuple[int, int, int]:
        usage = self._client.usage
        return usage.calls, usage.prompt_tokens, usage.completion_tokens


def _restarted() -> bool:
    """Return whether Ray made this actor anew after its process was lost."""
    import ray

    return ray.is_initialized() and bool(ray.get_runtime_context().was_current_actor_reconstructed)


def ask_missing(
    store: DescriptionStore, questions: Sequence[Question], server: Server, *, say: Callable[[str], None]
) -> Outcome:
    """Ask ``server`` the ``questions`` and put every good answer into ``store``.

    Raises ``ServerError`` if there is no server or no question can be answered by it; answers that came
    before that are kept. A question that fails by itself is listed in the outcome, and a spent budget leaves
    the rest unasked.
    """
    api_key = key_from_environment(server.base_url)
    asyncio.run(_check(server, api_key))
    connect()
    import ray

    rows = [{"label": question.label, "kind": question.kind, "n": question.n} for question in questions]
    answers = ray.data.from_items(rows, override_num_blocks=1).map_batches(
        AskDescriptions,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        fn_constructor_args=(str(store.path.absolute()), server, api_key),
        num_cpus=0,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )
    with _progress(store, len(questions), say):
        replies = answers.take_all()
    errors: dict[str, list[str]] = {"class": [], "budget": [], "all": []}
    for reply in replies:
        if reply["ends"]:
            errors[reply["ends"]].append(reply["error"])
    stored = len(questions) - sum(map(len, errors.values()))
    if errors["all"]:
        kept = f"; the {stored} answers that came before are stored" if stored else ""
        raise ServerError(errors["all"][0] + kept)
    calls, prompt_tokens, completion_tokens = (sum(reply["usage"][i] for reply in replies) for i in range(3))
    return Outcome(
        stored,
        tuple(errors["class"]),
        calls,
        prompt_tokens,
        completion_tokens,
        unasked=len(errors["budget"]),
        stopped=next(iter(errors["budget"]), ""),
    )


def estimate_missing(store: DescriptionStore, questions: Sequence[Question], server: Server) -> Estimate:
    """Estimate what ``ask_missing`` would spend, from what earlier answers in ``store`` took; asks nothing."""
    host = urlsplit(server_name(server_url(server.base_url))).netloc

    def past(n: int) -> Past | None:
        return store.past(prompt_id=server.prompt_id, model=server.model, host=host, n=n)

    asked = [(question.label, question.kind, question.n) for question in questions]
    return estimate(asked, prompt_set(server.prompt_id), past, server.concurrency)


async def _check(server: Server, api_key: SecretStr) -> None:
    async with server.client(api_key) as client:
        await client.check()


@contextmanager
def _progress(store: DescriptionStore, total: int, say: Callable[[str], None]) -> Iterator[None]:
    """Say now and then how many answers the store has gained: Ray's rows come only when all are there."""
    before, done = len(store.keys()), threading.Event()

    def watch() -> None:
        while not done.wait(_PROGRESS_S):
            say(f"  {len(store.keys()) - before} of {total} answers stored")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
