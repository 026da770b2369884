"""Describe the classes of a label list in words: by a language model, or from published files.

Leaves OUT/descriptions.sqlite, to which further classes, kinds and sources may be added; what it already holds
is not asked again. The key for a server is read from the environment variable OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llm_descriptions.prompts import KINDS, MSTA_V1, PROMPT_SETS
from pipelines.cli import run_script

if TYPE_CHECKING:
    from llm_descriptions.store import DescriptionStore, Key
    from pipelines.data.describe_stage import Outcome, Question, Server


_GO_WITH = {
    "model": ("base_url", "prompt", "concurrency", "context", "max_calls", "max_tokens", "dry_run"),
    "dry_run": ("price_in", "price_out"),
    "from_published": ("index_labels",),
    "export": ("export_style",),
    "report": ("backbone", "pretrained"),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="describe.py", description=__doc__)
    add = parser.add_argument
    add("--labels", required=True, type=Path, metavar="CSV", help="class list: id,name")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the store")
    add("--n", type=_positive, help="descriptions per class and kind (default: 2)")
    add("--kinds", nargs="+", default=list(KINDS), choices=KINDS, metavar="KIND",
        help="spatial (appearance) and/or temporal (steps); default: both")  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", help="language model to ask, by its name on the server")
    source.add_argument("--from-published", nargs="+", metavar="PATH",
        help="instead of a model: a folder of ETL4Video or OST files, the files themselves, or 'toy-ucf'...",
    )  # fmt: skip
    asking = parser.add_argument_group("asking a model")
    add = asking.add_argument
    add("--base-url", metavar="URL",
        help="any OpenAI-compatible server, such as http://localhost:11434/v1 (default: OpenAI)")  # fmt: skip
    add("--prompt", choices=PROMPT_SETS,
        help="prompt set (default: msta-v1, the paper's words); msta-v1-split asks about 'ApplyEyeMakeup' as"
        " 'Apply Eye Makeup'")  # fmt: skip
    add("--concurrency", type=_positive, help="questions open at a time (default: 8)")
    add("--context", type=_positive, metavar="N",
        help="ask again for descriptions of more than N tokens, as many as the text tower reads (CLIP: 77;"
        " default: those of more than 30 words); --report counts what is stored")  # fmt: skip
    add("--max-calls", type=_positive, metavar="N", help="stop asking after N HTTP calls of this run, repeats included")
    add("--max-tokens", type=_positive, metavar="N", help="stop asking before this run uses N tokens, in and out")
    add("--dry-run", action="store_true", help="ask nothing; print the questions, calls, tokens, cost and time to come")
    add("--price-in", type=_price, metavar="P", help="with --dry-run: price of a million tokens asked...")
    add("--price-out", type=_price, metavar="P", help="... and answered, in any currency")
    files = parser.add_argument_group("published files")
    add = files.add_argument
    add("--index-labels", nargs="+", type=Path, metavar="CSV",
        help="with --from-published: the list that the files' indexes refer to, if it is not --labels"
        " or beside it; several: their sorted union")  # fmt: skip
    add("--export", metavar="NAME", help="also write the descriptions of --kinds as files for data set NAME")
    add("--export-style", choices=["etl4video", "ost"],
        help="etl4video: OUT/N_s_description_NAME.json (default); ost: OUT/NAME/spatio_descriptors/N_..., phrases",
    )  # fmt: skip
    quality = parser.add_argument_group("quality report")
    add = quality.add_argument
    add("--report", action="store_true",
        help="write OUT/quality/: lengths, repetitions and similarities of the stored descriptions; may stand alone",
    )  # fmt: skip
    add("--backbone", metavar="NAME", help="text tower of the report (default: toy)")
    add("--pretrained", metavar="TAG|FILE", help="its weights (the toy has its own)")
    args = parser.parse_args(arguments)
    if not (args.model or args.from_published or args.report):
        parser.error("one of the arguments --model --from-published is required (or --report for what is stored)")
    for owner, flags in _GO_WITH.items():
        for flag in flags:
            given = getattr(args, flag)
            if given is not None and given is not False and not getattr(args, owner):
                parser.error(f"--{flag} goes with --{owner}".replace("_", "-"))
    if args.dry_run and (args.report or args.export):
        parser.error("--dry-run writes nothing: leave --report and --export out")
    if (args.price_in is None) != (args.price_out is None):
        parser.error("give both --price-in and --price-out")
    if args.export and not (args.model or args.from_published):
        parser.error("--export goes with --model or --from-published, which say what to write")
    args.prompt, args.concurrency = args.prompt or MSTA_V1.id, args.concurrency or 8
    args.export_style, args.backbone = args.export_style or "etl4video", args.backbone or "toy"
    return args


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def _price(text: str) -> float:
    if not 0 <= (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not {text}")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Fill the store; returns 1 if classes failed or were not asked."""
    args = parse(arguments)
    from llm_descriptions.labels import read_labels
    from llm_descriptions.store import FILE_NAME, DescriptionStore

    labels = read_labels(args.labels)
    store = DescriptionStore(args.out / FILE_NAME)
    keys: list[Key] = []
    left = 0
    if args.from_published:
        keys = _import(store, args)
    elif args.model:
        keys, left = _ask(store, labels, args)
        if args.dry_run:
            return 0
    print(f"store: {store.path}")
    for kind in dict.fromkeys(key.kind for key in keys):
        for key in keys:
            if key.kind == kind and (texts := store.get(key)):
                print(f"  {kind}, '{key.label}': {texts[0]}")
                break
    if args.export and left:
        print("not exported: descriptions are missing", file=sys.stderr)
    elif args.export:
        _export(store, labels, keys, args)
    if args.report:
        _report(store, labels, args)
    return 1 if left else 0


def _ask(store: DescriptionStore, labels: tuple[str, ...], args: argparse.Namespace) -> tuple[list[Key], int]:
    """Return the keys of all questions, and how many of them have no answer."""
    from llm_descriptions.budget import Budget
    from llm_descriptions.client import server_url
    from pipelines.data.describe_stage import Outcome, Question, Server, ask_missing

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
    from pipelines.data.describe_stage import estimate_missing

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


def _import(store: DescriptionStore, args: argparse.Namespace) -> list[Key]:
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


def _export(store: DescriptionStore, labels: tuple[str, ...], keys: list[Key], args: argparse.Namespace) -> None:
    from llm_descriptions.published import export_published

    for kind, n in dict.fromkeys((key.kind, key.n) for key in keys if key.kind in args.kinds):
        texts = {key.label: store.get(key) or () for key in keys if (key.kind, key.n) == (kind, n)}
        path = export_published(args.out, args.export, texts, labels, kind=kind, n=n, style=args.export_style)
        print(f"written: {path}")


def _report(store: DescriptionStore, labels: tuple[str, ...], args: argparse.Namespace) -> None:
    if not store.keys():
        store.bank(labels, args.kinds, n=args.n)  # raises, before torch is loaded
    from pipelines.data.describe_page import write_quality
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


if __name__ == "__main__":
    run_script(main)
