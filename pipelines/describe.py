"""Describe the classes of a label list in words: by a language model, or from published files.

Leaves OUT/descriptions.sqlite, to which further classes, kinds and sources may be added; what it already holds
is not asked again. The key for a server is read from the environment variable OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli import run_script

if TYPE_CHECKING:
    from llm_descriptions.store import DescriptionStore, Key


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="describe.py", description=__doc__)
    parser.add_argument("--labels", required=True, type=Path, metavar="CSV", help="class list: id,name")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the store")
    parser.add_argument("--n", type=int, default=2, help="descriptions per class and kind (default: 2)")
    parser.add_argument(
        "--kinds", nargs="+", default=["spatial", "temporal"], choices=["spatial", "temporal"], metavar="KIND",
        help="spatial (appearance) and/or temporal (steps); default: both",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="language model to ask, by its name on the server")
    source.add_argument(
        "--from-published", nargs="+", metavar="PATH",
        help="instead of a model: a folder of ETL4Video or OST files, the files themselves, or 'toy-ucf'...",
    )  # fmt: skip
    parser.add_argument(
        "--base-url", metavar="URL",
        help="any OpenAI-compatible server, such as http://localhost:11434/v1 (default: OpenAI)",
    )  # fmt: skip
    parser.add_argument("--concurrency", type=int, default=8, help="questions open at a time (default: 8)")
    parser.add_argument(
        "--index-labels", nargs="+", default=[], type=Path, metavar="CSV",
        help="with --from-published: the list that the files' indexes refer to, if it is not --labels"
        " or beside it; several: their sorted union",
    )  # fmt: skip
    parser.add_argument(
        "--export", metavar="NAME", help="also write OUT/N_s_description_NAME.json and N_t_... (ETL4Video's form)"
    )
    args = parser.parse_args(arguments)
    if args.n < 1 or args.concurrency < 1:
        parser.error("--n and --concurrency must be at least 1")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Fill the store; returns 1 if classes failed."""
    args = parse(arguments)
    from llm_descriptions.labels import read_labels
    from llm_descriptions.store import FILE_NAME, DescriptionStore

    labels = read_labels(args.labels)
    store = DescriptionStore(args.out / FILE_NAME)
    if args.from_published:
        keys, failed = _import(store, args), 0
    else:
        keys, failed = _ask(store, labels, args)
    print(f"store: {store.path}")
    for kind in dict.fromkeys(key.kind for key in keys):
        for key in keys:
            if key.kind == kind and (texts := store.get(key)):
                print(f"  {kind}, '{key.label}': {texts[0]}")
                break
    if args.export and not failed:
        _export(store, labels, keys, args)
    return 1 if failed else 0


def _ask(store: DescriptionStore, labels: tuple[str, ...], args: argparse.Namespace) -> tuple[list[Key], int]:
    from pipelines.data.describe_stage import Outcome, Question, Server, ask_missing

    server = Server(args.model, args.base_url, args.concurrency)
    questions = [Question(label, kind, args.n) for kind in dict.fromkeys(args.kinds) for label in labels]
    held = set(store.keys())
    missing = [question for question in questions if server.key(question) not in held]
    outcome = Outcome(0, (), 0, 0, 0)
    if missing:
        outcome = ask_missing(store, missing, server, say=print)
    for reason in outcome.failed:
        print(f"failed: {reason}", file=sys.stderr)
    print(
        f"{len(labels)} classes, {len(questions)} descriptions of n={args.n}: "
        f"{len(questions) - len(missing)} from the store, {outcome.stored} asked, {len(outcome.failed)} failed; "
        f"{outcome.calls} calls, {outcome.prompt_tokens} + {outcome.completion_tokens} tokens"
    )
    if outcome.failed:
        print("what succeeded is stored; run the same command again to ask for the rest", file=sys.stderr)
    return [server.key(question) for question in questions], len(outcome.failed)


def _import(store: DescriptionStore, args: argparse.Namespace) -> list[Key]:
    from llm_descriptions.locate import find_published
    from llm_descriptions.store import Provenance

    found = find_published(
        args.labels,
        args.from_published,
        kinds=list(dict.fromkeys(args.kinds)),
        n=args.n,
        index_labels=args.index_labels,
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


def _export(store: DescriptionStore, labels: tuple[str, ...], keys: list[Key], args: argparse.Namespace) -> None:
    from llm_descriptions.published import export_etl4video

    for kind, n in dict.fromkeys((key.kind, key.n) for key in keys):
        texts = {key.label: store.get(key) or () for key in keys if (key.kind, key.n) == (kind, n)}
        path = args.out / f"{n}_{kind[0]}_description_{args.export}.json"
        export_etl4video(path, texts, labels)
        print(f"written: {path}")


if __name__ == "__main__":
    run_script(main)
