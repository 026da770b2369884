"""The language-model stage: a Ray Data pipeline that asks for the descriptions which a store lacks.

The work is waiting for a server, so one task with one event loop keeps ``concurrency`` questions open. It runs on the
driver's node, where the store is, and stores each answer as it comes. (A task: the process of an actor would take
seconds more to start.)
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llm_descriptions.budget import AverageCost, Budget, BudgetError, Estimate, Usage, estimate
from llm_descriptions.client import DescriptionClient, key_from_environment, server_url
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import LongWaitError, ServerError, server_name
from llm_descriptions.prompts import MSTA_V1, Question, prompt_set
from llm_descriptions.store import DescriptionStore, Key
from pipelines.cluster.session import connect_for_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa
    from pydantic import SecretStr


_PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """The language model that answers, its prompts, and how much is asked at a time and in all.

    ``context``: tokens that a text tower with CLIP's tokenizer reads; longer sentences are asked for again.
    """

    model: str
    base_url: str | None = None
    concurrency: int = 8
    prompt_id: str = MSTA_V1.id
    budget: Budget = field(default_factory=Budget)
    context: int | None = None
    allow_http: bool = False

    def key(self, question: Question) -> Key:
        """Return the key under which the store has the answer."""
        return Key(question.label, question.kind, self.prompt_id, self.model, question.n)

    def client(self, api_key: SecretStr, *, too_long: Callable[[str], bool] | None = None) -> DescriptionClient:
        """Return a client. The key is no field of a server, so that nothing that prints a server prints the key."""
        return DescriptionClient(
            self.model,
            base_url=self.base_url,
            prompts=prompt_set(self.prompt_id),
            concurrency=self.concurrency,
            budget=self.budget,
            api_key=api_key,
            too_long=too_long,
            allow_http=self.allow_http,
        )


@dataclass(frozen=True, slots=True)
class AskOutcome:
    """The result of asking: ``failed`` has the reason of each failed question, ``stopped`` that of ``unasked``."""

    stored: int = 0
    failed: tuple[str, ...] = ()
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unasked: int = 0
    stopped: str = ""

    @classmethod
    def of(cls, replies: Sequence[Mapping[str, Any]]) -> AskOutcome:
        """Sum up the rows of ``ask_batch``.

        Raises:
            ServerError: there is no server, or it can answer no question.
        """
        errors: dict[str, list[str]] = {"class": [], "run": [], "all": []}
        for reply in replies:
            if reply["ends"]:
                errors[reply["ends"]].append(reply["error"])
        stored = len(replies) - sum(map(len, errors.values()))
        if errors["all"]:
            kept = f"; the {stored} answers that came before are stored" if stored else ""
            raise ServerError(errors["all"][0] + kept)
        calls, prompt_tokens, completion_tokens = (sum(reply["usage"][i] for reply in replies) for i in range(3))
        return cls(
            stored,
            tuple(errors["class"]),
            calls,
            prompt_tokens,
            completion_tokens,
            unasked=len(errors["run"]),
            stopped=next(iter(errors["run"]), ""),
        )


def ask_batch(
    batch: pa.Table, store_path: str, server: Server, api_key: SecretStr, ticket: str
) -> dict[str, list[Any]]:
    """Ask the questions (label, kind, n) of a batch; return ``error``, what it ``ends``, and ``usage`` of each.

    The client bounds how many questions are open. ``ticket`` is a file that the first attempt removes: Ray repeats a
    task whose process was lost, and the repetition must not spend the budget again.
    """
    questions = [Question(**row) for row in batch.to_pylist()]
    try:
        Path(ticket).unlink()
        repeated = False
    except FileNotFoundError:
        repeated = True
    store = DescriptionStore(store_path)
    with store.keep_open():
        replies, spent = asyncio.run(
            _ask_all(questions, store, server, api_key, may_ask=not repeated or server.budget == Budget())
        )
    # The usage of the whole batch goes into its first row.
    return {
        "error": [error for error, _ in replies],
        "ends": [ends for _, ends in replies],
        "usage": [[spent.calls, spent.prompt_tokens, spent.completion_tokens], *[[0, 0, 0]] * (len(questions) - 1)],
    }


async def _ask_all(
    questions: Sequence[Question], store: DescriptionStore, server: Server, api_key: SecretStr, *, may_ask: bool
) -> tuple[list[tuple[str, str]], Usage]:
    held = set(store.keys())
    async with server.client(api_key, too_long=_longer_than(server.context)) as client:

        async def ask(question: Question) -> tuple[str, str]:
            """Return the error, and what it ends: one "class", this "run", or "all" where there is no server."""
            key = server.key(question)
            if key in held:  # the task is repeated, or another job was quicker
                return "", ""
            if not may_ask:
                return "the process that asks was lost, and the count of its calls with it", "run"
            try:
                described = await client.describe(question)
                # In a thread, so that a slow disk does not hold up the next questions.
                await asyncio.to_thread(store.put, key, described.texts, described.provenance)
            except (BudgetError, LongWaitError) as error:
                return str(error), "run"
            except DescriptionError as error:
                return str(error), "all" if isinstance(error, ServerError) else "class"
            return "", ""

        return list(await asyncio.gather(*map(ask, questions))), client.usage


def _longer_than(context: int | None) -> Callable[[str], bool] | None:
    """Return a test for texts of more than ``context`` tokens of CLIP's tokenizer, start and end included."""
    if context is None:
        return None
    from open_clip.tokenizer import SimpleTokenizer

    encode = SimpleTokenizer().encode
    return lambda text: len(encode(text)) + 2 > context


def ask_missing(
    store: DescriptionStore, questions: Sequence[Question], server: Server, *, say: Callable[[str], None]
) -> AskOutcome:
    """Ask ``server`` the ``questions`` and put every good answer into ``store``.

    A question that fails by itself is listed in the outcome. A spent budget, or a server that asks for a long wait,
    leaves the rest unasked.

    Raises:
        ServerError: there is no server, or it can answer no question; answers that came before are kept.
    """
    api_key = key_from_environment(server.base_url)
    asyncio.run(_check(server, api_key))
    connect_for_data()
    import ray

    rows = [{"label": question.label, "kind": question.kind, "n": question.n} for question in questions]
    with tempfile.TemporaryDirectory() as folder, _progress(store, len(questions), say):
        ticket = Path(folder) / "ticket"
        ticket.touch()
        answers = ray.data.from_items(rows, override_num_blocks=1).map_batches(
            ask_batch,
            batch_size=None,
            batch_format="pyarrow",
            fn_args=(str(store.path.absolute()), server, api_key, str(ticket)),
            num_cpus=0,
            label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
        )
        replies = answers.take_all()
    return AskOutcome.of(replies)


def estimate_missing(store: DescriptionStore, questions: Sequence[Question], server: Server) -> Estimate:
    """Estimate the cost of ``ask_missing`` from earlier answers in ``store``; ask nothing."""
    host = urlsplit(server_name(server_url(server.base_url))).netloc

    def average_cost(n: int) -> AverageCost | None:
        return store.average_cost(prompt_id=server.prompt_id, model=server.model, host=host, n=n)

    return estimate(questions, prompt_set(server.prompt_id), average_cost, server.concurrency)


async def _check(server: Server, api_key: SecretStr) -> None:
    async with server.client(api_key) as client:
        await client.check()


@contextmanager
def _progress(store: DescriptionStore, total: int, say: Callable[[str], None]) -> Iterator[None]:
    """Say every few seconds how many answers the store has gained; Ray yields no row before all are there."""
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
