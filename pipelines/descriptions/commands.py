"""The commands of ``describe.py``: ask, import, export, report. They print what they do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_descriptions.budget import Estimate
    from llm_descriptions.store import DescriptionStore, Key
    from pipelines.descriptions.ask import AskOutcome, Server
    from pipelines.descriptions.flags import DescribeRequest


def ask(store: DescriptionStore, labels: tuple[str, ...], request: DescribeRequest) -> tuple[list[Key], int]:
    """Ask the language model what the store lacks; return the keys of all questions, and how many lack an answer."""
    from llm_descriptions.budget import Budget
    from llm_descriptions.client import key_from_environment, server_url
    from llm_descriptions.failures import server_name
    from llm_descriptions.prompts import Question
    from llm_descriptions.transport import is_open_line
    from pipelines.descriptions.ask import AskOutcome, Server, ask_missing, estimate_missing

    assert request.model
    budget = Budget(request.max_calls, request.max_tokens)
    server = Server(
        request.model,
        server_url(request.base_url),
        request.concurrency,
        request.prompt,
        budget,
        request.context,
        request.allow_http,
    )
    questions = [Question(label, kind, request.count) for kind in request.kinds for label in labels]
    keys, held = [server.key(question) for question in questions], set(store.keys())
    missing = [question for question, key in zip(questions, keys, strict=True) if key not in held]
    counted = (
        f"{len(labels)} classes, {len(questions)} descriptions of n={request.count}: "
        f"{len(questions) - len(missing)} from the store, "
    )
    if request.dry_run:
        print(f"{counted}{len(missing)} to ask")
        _print_estimate(estimate_missing(store, missing, server), server, request)
        return keys, len(missing)
    if request.allow_http and is_open_line(server.base_url or "", key_from_environment(server.base_url)):
        print(f"note: OPENAI_API_KEY is sent to {server_name(server.base_url or '')} in the clear", file=sys.stderr)
    outcome = ask_missing(store, missing, server, say=print) if missing else AskOutcome()
    for reason in outcome.failed:
        print(f"failed: {reason}", file=sys.stderr)
    print(
        f"{counted}{outcome.stored} asked, {len(outcome.failed)} failed; "
        f"{outcome.calls} calls, {outcome.prompt_tokens} + {outcome.completion_tokens} tokens"
    )
    _print_rest(outcome)
    return keys, len(outcome.failed) + outcome.unasked


def _print_rest(outcome: AskOutcome) -> None:
    if outcome.stopped:
        print(
            f"stopped: {outcome.stopped}; {outcome.unasked} descriptions were not asked. Answers so far are stored: "
            "run the same command again to ask for the rest",
            file=sys.stderr,
        )
    elif outcome.failed:
        print("answers so far are stored; run the same command again to ask for the rest", file=sys.stderr)


def _print_estimate(cost: Estimate, server: Server, request: DescribeRequest) -> None:
    from llm_descriptions.failures import server_name

    basis = f"as {cost.measured} stored answers took" if cost.measured else "by rule: four characters a token"
    print(f"server  {server_name(server.base_url or '')}, model {server.model}, prompt {server.prompt_id}")
    print(f"calls   {cost.calls:.0f}, {request.concurrency} at a time; each failed or unusable answer costs one more")
    print(f"tokens  {cost.prompt_tokens:.0f} in, {cost.completion_tokens:.0f} out ({basis}), plus any reasoning")
    if request.price_in is not None and request.price_out is not None:
        price = cost.cost(request.price_in, request.price_out)
        print(f"cost    {price:.4g} at {request.price_in:g} in and {request.price_out:g} out a million tokens")
    else:
        print("cost    not known: give --price-in and --price-out a million tokens")
    if cost.seconds is not None:
        print(f"time    {cost.seconds:.0f} s, as fast as the stored answers came, and Ray's start")
    else:
        print("time    not known: no stored answer of this model, server and prompt says how long one takes")
    if (request.max_calls and cost.calls > request.max_calls) or (
        request.max_tokens and cost.prompt_tokens + cost.completion_tokens > request.max_tokens
    ):
        print("budget  will probably end the run before all is asked")


def import_published(store: DescriptionStore, request: DescribeRequest) -> list[Key]:
    """Put published descriptions into the store, and return their keys."""
    from llm_descriptions.locate import find_published
    from llm_descriptions.store import Provenance

    found = find_published(
        request.labels,
        list(request.from_published),
        kinds=list(request.kinds),
        n=request.count,
        index_labels=list(request.index_labels),
    )
    keys: list[Key] = []
    for published in found:
        entries = published.entries()
        before = len(store.keys())
        store.put_all(entries, Provenance(origin=published.file.path.name))
        new, file = len(store.keys()) - before, published.file
        print(f"{file.path}: {len(entries)} classes ({file.kind}, n={file.n}), {new} new")
        for note in published.notes:
            print(f"note: {note}")
        keys += entries
    return keys


def export(store: DescriptionStore, labels: tuple[str, ...], keys: list[Key], request: DescribeRequest) -> None:
    """Write the descriptions of ``keys`` in a published form."""
    from llm_descriptions.published_files import export_published

    assert request.export

    for kind, n in dict.fromkeys((key.kind, key.n) for key in keys if key.kind in request.kinds):
        texts = {key.label: store.get(key) or () for key in keys if (key.kind, key.n) == (kind, n)}
        path = export_published(request.out, request.export, texts, labels, kind=kind, n=n, style=request.export_style)
        print(f"written: {path}")


def report(store: DescriptionStore, labels: tuple[str, ...], request: DescribeRequest) -> None:
    """Write the quality report of what is stored."""
    if not store.keys():
        store.bank(labels, request.kinds, n=request.n)  # raises, before torch is loaded
    from pipelines.descriptions.quality_page import write_quality
    from vlmodels.clip import TOY, TOY_VICLIP, create
    from vlmodels.errors import UserError

    weights = request.pretrained or (TOY if request.backbone in {TOY, TOY_VICLIP} else None)
    if weights is None:
        raise UserError(
            f"--backbone {request.backbone} needs --pretrained TAG or FILE: similarities of random weights mean "
            "nothing; python -m vlmodels --list shows the tags"
        )
    backbone = create(request.backbone, weights=weights)
    for path in write_quality(store, labels, request.kinds, backbone, request.out / "quality", n=request.n):
        print(f"written: {path}")
