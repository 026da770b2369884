"""What ``describe.py`` does: ask, import, export, report."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_descriptions.store import DescriptionStore, Key
    from pipelines.descriptions.ask import Outcome, Question, Server


def ask(store: DescriptionStore, labels: tuple[str, ...], args: argparse.Namespace) -> tuple[list[Key], int]:
    """Return the keys of all questions, and how many of them have no answer."""
    from llm_descriptions.budget import Budget
    from llm_descriptions.client import server_url
    from pipelines.descriptions.ask import Outcome, Question, Server, ask_missing

    budget = Budget(args.max_calls, args.max_tokens)
    server = Server(args.model, server_url(args.base_url), args.concurrency, args.prompt, budget, args.context)
    questions = [Question(label, kind, args.n or 2) for kind in dict.fromkeys(args.kinds) for label in labels]
    keys, held = [server.key(question) for question in questions], set(store.keys())
    missing = [question for question, key in zip(questions, keys, strict=True) if key not in held]
    counted = f"{len(labels)} classes, {len(questions)} descriptions of n={args.n or 2}: "
    counted += f"{len(questions) - len(missing)} from the store, "
    if args.dry_run:
        print(f"{counted}{len(missing)} to ask")
        _print_estimate(store, missing, server, args)
        return keys, len(missing)
    outcome = ask_missing(store, missing, server, say=print) if missing else Outcome()
    for reason in outcome.failed:
        print(f"failed: {reason}", file=sys.stderr)
    print(
        f"{counted}{outcome.stored} asked, {len(outcome.failed)} failed; "
        f"{outcome.calls} calls, {outcome.prompt_tokens} + {outcome.completion_tokens} tokens"
    )
    _print_rest(outcome)
    return keys, len(outcome.failed) + outcome.unasked


def _print_rest(outcome: Outcome) -> None:
    if outcome.stopped:
        print(
            f"stopped: {outcome.stopped}; {outcome.unasked} descriptions were not asked. What came is stored: "
            "run the same command again to go on",
            file=sys.stderr,
        )
    elif outcome.failed:
        print("what succeeded is stored; run the same command again to ask for the rest", file=sys.stderr)


def _print_estimate(store: DescriptionStore, missing: list[Question], server: Server, args: argparse.Namespace) -> None:
    from llm_descriptions.failures import server_name
    from pipelines.descriptions.ask import estimate_missing

    cost = estimate_missing(store, missing, server)
    basis = f"as {cost.measured} stored answers took" if cost.measured else "by rule: four characters a token"
    print(f"server  {server_name(server.base_url or '')}, model {server.model}, prompt {server.prompt_id}")
    print(f"calls   {cost.calls:.0f}, {args.concurrency} at a time; each failed or unusable answer costs one more")
    print(f"tokens  {cost.prompt_tokens:.0f} in, {cost.completion_tokens:.0f} out ({basis}), plus any reasoning")
    if args.price_in is not None:
        price = cost.cost(args.price_in, args.price_out)
        print(f"cost    {price:.4g} at {args.price_in:g} in and {args.price_out:g} out a million tokens")
    else:
        print("cost    not known: give --price-in and --price-out a million tokens")
    if cost.seconds is not None:
        print(f"time    {cost.seconds:.0f} s, as fast as the stored answers came, and Ray's start")
    else:
        print("time    not known: no stored answer of this model, server and prompt tells how long one takes")
    if (args.max_calls and cost.calls > args.max_calls) or (
        args.max_tokens and cost.prompt_tokens + cost.completion_tokens > args.max_tokens
    ):
        print("budget  will probably end the run before all is asked")


def import_published(store: DescriptionStore, args: argparse.Namespace) -> list[Key]:
    """Put published descriptions into the store, and return their keys."""
    from llm_descriptions.locate import find_published
    from llm_descriptions.store import Provenance

    found = find_published(
        args.labels,
        args.from_published,
        kinds=list(dict.fromkeys(args.kinds)),
        n=args.n or 2,
        index_labels=args.index_labels or [],
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


def export(store: DescriptionStore, labels: tuple[str, ...], keys: list[Key], args: argparse.Namespace) -> None:
    """Write the descriptions of ``keys`` in a published form."""
    from llm_descriptions.published import export_published

    for kind, n in dict.fromkeys((key.kind, key.n) for key in keys if key.kind in args.kinds):
        texts = {key.label: store.get(key) or () for key in keys if (key.kind, key.n) == (kind, n)}
        path = export_published(args.out, args.export, texts, labels, kind=kind, n=n, style=args.export_style)
        print(f"written: {path}")


def report(store: DescriptionStore, labels: tuple[str, ...], args: argparse.Namespace) -> None:
    """Write the quality report of what is stored."""
    if not store.keys():
        store.bank(labels, args.kinds, n=args.n)  # raises, before torch is loaded
    from pipelines.descriptions.quality_page import write_quality
    from vlmodels.clip import TOY, TOY_VICLIP, create
    from vlmodels.errors import UserError

    weights = args.pretrained or (TOY if args.backbone in {TOY, TOY_VICLIP} else None)
    if weights is None:
        raise UserError(
            f"--backbone {args.backbone} needs --pretrained TAG or FILE: similarities of random weights mean nothing; "
            "python -m vlmodels --list shows the tags"
        )
    backbone = create(args.backbone, weights=weights)
    for path in write_quality(store, labels, args.kinds, backbone, args.out / "quality", n=args.n):
        print(f"written: {path}")
