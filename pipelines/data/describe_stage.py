"""The language-model stage: a Ray Data pipeline from classes without descriptions to a filled store.

The work is waiting for a server, so one actor with one event loop keeps ``concurrency`` questions open for as
long as there are any; it sits on the driver's node, where the store is, and stores each answer as it comes.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_descriptions.client import DescriptionClient, key_from_environment
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import ServerError
from llm_descriptions.prompts import MSTA_V1
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
    """The language model that answers, and how many questions it gets at a time."""

    model: str
    base_url: str | None = None
    concurrency: int = 8

    def key(self, question: Question) -> Key:
        """Return the key under which the store has the answer."""
        return Key(question.label, question.kind, MSTA_V1.id, self.model, question.n)

    def client(self, api_key: SecretStr) -> DescriptionClient:
        """Return a client; the key travels by itself, so that nothing that shows a server shows it."""
        return DescriptionClient(self.model, base_url=self.base_url, concurrency=self.concurrency, api_key=api_key)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the questions: ``failed`` says why, a line a question; the rest is in the store."""

    stored: int
    failed: tuple[str, ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int


class AskDescriptions:
    """A ``map_batches`` actor: questions (label, kind, n) in, the same with ``error`` and ``usage`` out."""

    def __init__(self, store: str, server: Server, api_key: SecretStr) -> None:
        self._store = DescriptionStore(store)
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._client = server.client(api_key)

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
            "fatal": [fatal for _, fatal in replies],
            "usage": [spent, *[[0, 0, 0]] * (len(questions) - 1)],
        }

    async def _ask_all(self, questions: Sequence[Question]) -> list[tuple[str, bool]]:
        return await asyncio.gather(*(self._ask(question) for question in questions))

    async def _ask(self, question: Question) -> tuple[str, bool]:
        key = self._server.key(question)
        if self._store.get(key) is not None:  # this actor was restarted, or another job was quicker
            return "", False
        try:
            described = await self._client.describe(question.label, question.kind, question.n)
            self._store.put(key, described.texts, described.provenance)
        except DescriptionError as error:
            return str(error), isinstance(error, ServerError)
        return "", False

    def _spent(self) -> tuple[int, int, int]:
        usage = self._client.usage
        return usage.calls, usage.prompt_tokens, usage.completion_tokens


def ask_missing(
    store: DescriptionStore, questions: Sequence[Question], server: Server, *, say: Callable[[str], None]
) -> Outcome:
    """Ask ``server`` the ``questions`` and put every good answer into ``store``.

    Raises ``ServerError`` if there is no server or no question can be answered by it; answers that came
    before that are kept. A question that fails by itself is listed in the outcome.
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
    fatal = [reply["error"] for reply in replies if reply["fatal"]]
    if fatal:
        raise ServerError(fatal[0])
    failed = tuple(reply["error"] for reply in replies if reply["error"])
    calls, prompt_tokens, completion_tokens = (sum(reply["usage"][i] for reply in replies) for i in range(3))
    return Outcome(len(questions) - len(failed), failed, calls, prompt_tokens, completion_tokens)


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
