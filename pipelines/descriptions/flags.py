"""The command line of ``describe.py``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from llm_descriptions.prompts import KINDS, MSTA_V1, PROMPT_SETS

_Add = Callable[..., argparse.Action]
"""``add_argument`` of a group of flags."""
_GO_WITH = {
    "model": ("base_url", "prompt", "concurrency", "context", "max_calls", "max_tokens", "dry_run", "allow_http"),
    "dry_run": ("price_in", "price_out"),
    "from_published": ("index_labels",),
    "export": ("export_style",),
    "report": ("backbone", "pretrained"),
}


@dataclass(frozen=True, kw_only=True)
class DescribeRequest:
    """What ``describe.py`` is asked to do; the flags' help texts say more.

    Attributes:
        labels: class list.
        out: folder of the store.
        kinds: kinds of descriptions.
        n: descriptions of a class and kind; None: 2, or those that are stored.
        model: language model to ask; None: none.
        from_published: published files or folders to import.
        export: name of a data set to export for.
        report: whether to write the quality report.
    """

    labels: Path
    out: Path
    kinds: tuple[str, ...]
    n: int | None
    model: str | None
    base_url: str | None
    prompt: str
    concurrency: int
    context: int | None
    max_calls: int | None
    max_tokens: int | None
    dry_run: bool
    allow_http: bool
    price_in: float | None
    price_out: float | None
    from_published: tuple[str, ...]
    index_labels: tuple[Path, ...]
    export: str | None
    export_style: str
    report: bool
    backbone: str
    pretrained: str | None

    @property
    def count(self) -> int:
        """Descriptions to ask for, or to import, of a class and kind."""
        return self.n or 2


def parse(description: str | None, arguments: list[str] | None = None) -> DescribeRequest:
    """Parse the command line of the script that ``description`` describes; ends the process if flags do not fit."""
    parser = _parser(description)
    args = parser.parse_args(arguments)
    _check_together(parser, args)
    chosen = vars(args) | {
        "kinds": tuple(dict.fromkeys(args.kinds)),
        "prompt": args.prompt or MSTA_V1.id,
        "concurrency": args.concurrency or 8,
        "from_published": tuple(args.from_published or ()),
        "index_labels": tuple(args.index_labels or ()),
        "export_style": args.export_style or "etl4video",
        "backbone": args.backbone or "toy",
    }
    return DescribeRequest(**{field.name: chosen[field.name] for field in fields(DescribeRequest)})


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="describe.py", description=description)
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
    _add_asking(parser.add_argument_group("asking a model").add_argument)
    _add_files(parser.add_argument_group("published files").add_argument)
    _add_quality(parser.add_argument_group("quality report").add_argument)
    return parser


def _add_asking(add: _Add) -> None:
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
    add("--allow-http", action="store_true",
        help="send OPENAI_API_KEY to another machine without encryption (https never needs this)")  # fmt: skip
    add("--price-in", type=_price, metavar="P", help="with --dry-run: price of a million tokens asked...")
    add("--price-out", type=_price, metavar="P", help="... and answered, in any currency")


def _add_files(add: _Add) -> None:
    add("--index-labels", nargs="+", type=Path, metavar="CSV",
        help="with --from-published: the list that the files' indexes refer to, if it is not --labels"
        " or next to it; several: their sorted union")  # fmt: skip
    add("--export", metavar="NAME", help="also write the descriptions of --kinds as files for data set NAME")
    add("--export-style", choices=["etl4video", "ost"],
        help="etl4video: OUT/N_s_description_NAME.json (default); ost: OUT/NAME/spatio_descriptors/N_..., phrases",
    )  # fmt: skip


def _add_quality(add: _Add) -> None:
    add("--report", action="store_true",
        help="write OUT/quality/: lengths, repetitions and similarities of the stored descriptions;"
        " needs neither --model nor --from-published",
    )  # fmt: skip
    add("--backbone", metavar="NAME", help="text tower of the report (default: toy)")
    add("--pretrained", metavar="TAG|FILE", help="its weights (the toy has its own)")


def _check_together(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the process with a message if flags do not go together."""
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


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def _price(text: str) -> float:
    if not 0 <= (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not {text}")
    return number
