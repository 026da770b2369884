"""The page of a quality report: ``quality.json``, ``quality.md`` and a similarity heat map for each source."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from pipelines.descriptions.quality import judge_store
from pipelines.reports.page import markdown
from pipelines.storage.files import write_whole
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from llm_descriptions.store import DescriptionStore
    from vlmodels.backbone import Backbone


mpl.use("Agg")
mpl.rcParams["text.parse_math"] = False  # names of users are not formulas

_SHOWN = 8
_MOST_NAMES = 60


def write_quality(
    store: DescriptionStore,
    labels: Sequence[str],
    kinds: Sequence[str],
    backbone: Backbone,
    out: Path,
    *,
    n: int | None = None,
) -> list[Path]:
    """Judge the stored descriptions of ``labels`` (of every source, or those with ``n``); return the files written.

    Raises:
        DescriptionError: no source has all labels.
        UserError: ``out`` cannot be written.
    """
    record, matrices = judge_store(store, labels, kinds, backbone, n=n)
    try:
        out.mkdir(parents=True, exist_ok=True)
        pictures = []
        for number, (source, cosines) in enumerate(zip(record["sources"], matrices, strict=True), 1):
            picture = out / f"similarity_{number}_{source['kind']}.png"
            write_whole(picture, partial(draw_similarity, cosines, labels))
            source["picture"] = picture.name
            pictures.append(picture)
        contents = {"quality.json": json.dumps(record, indent=1, ensure_ascii=False), "quality.md": page(record)}
        for name, text in contents.items():
            write_whole(out / name, partial(_write, f"{text}\n"))
    except OSError as error:
        raise UserError(f"cannot write the quality report {out}: {error}") from error
    return [*(out / name for name in contents), *pictures]


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def draw_similarity(cosines: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """Draw a heat map of cosines (C,C) between classes as PNG.

    The diagonal, always 1, has no colour. The lowest tenth share one, so that a few odd classes do not take the range
    from the others.
    """
    others = np.where(np.eye(len(labels), dtype=bool), np.nan, cosines)
    least = float(np.nanpercentile(others, 10)) if len(labels) > 1 else 0.0
    side = float(np.clip(0.19 * len(labels), 3.5, 12))
    figure, axes = plt.subplots(figsize=(side + 1, side))
    axes.set_facecolor("#dddddd")
    image = axes.imshow(others, cmap="Blues", vmin=least)
    if len(labels) <= _MOST_NAMES:
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6, parse_math=False)
        axes.set_yticks(range(len(labels)), labels, fontsize=6, parse_math=False)
    else:
        axes.set(xlabel="class, in the order of the list", ylabel="class")
    label = "cosine of the classes' mean description features"
    figure.colorbar(image, fraction=0.046, pad=0.02, extend="min", label=label)
    figure.savefig(path, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)


def page(record: Mapping[str, Any]) -> str:
    """Return the record as Markdown."""
    lines = [
        "# Quality of the descriptions",
        "",
        f"{record['classes']} classes in {markdown(record['store'])}; text tower of {markdown(record['backbone'])}, "
        f"which reads {record['context']} tokens.",
        *(f"\n> Remark: {remark}." for remark in record["remarks"]),
    ]
    for source in record["sources"]:
        lines += ["", *_section(source)]
    for gap in record["incomplete"]:
        lines += [
            "",
            f"Not judged, as classes are missing: {gap['kind']}, {markdown(gap['source'])}: {_some(gap['missing'])}",
        ]
    return "\n".join(lines)


def _section(source: Mapping[str, Any]) -> Iterator[str]:
    words, tokens = source["words"], source["tokens"]
    yield from (f"## {source['kind'].capitalize()}: {markdown(source['source'])}", "", "| what | |", "|---|---|")
    rows: dict[str, Any] = {
        "texts": source["texts"],
        "classes with another number of texts": len(source["uneven"]),
        "words a text (least, mean, most)": f"{words['min']}, {words['mean']}, {words['max']}",
        "tokens a text (least, mean, most)": f"{tokens['min']}, {tokens['mean']}, {tokens['max']}",
        "texts that the text tower cuts": len(source["cut"]),
        "phrases twice in a class": len(source["twice"]),
        "phrases shared by classes": len(source["shared"]),
        "texts that hold their class name": _length(source["leaks"], "not counted: temporal sentences name it"),
        "texts without the published frame": _length(source["misses"], "not counted: this source has none"),
        "mean cosine between classes": source["mean_cosine"],
    }
    yield from (f"| {what} | {value} |" for what, value in rows.items())
    yield ""
    for what, found in (
        ("Closest classes", [f"{' / '.join(p['labels'])} ({p['cosine']:.3f})" for p in source["closest"]]),
        ("Another number of texts", [f"{label} ({count})" for label, count in source["uneven"].items()]),
        ("Cut", [f"{hit['label']} ({hit['tokens']} tokens)" for hit in source["cut"]]),
        ("Twice in a class", [f"{hit['label']}: {hit['text']}" for hit in source["twice"]]),
        ("Shared", [f"{hit['text']}: {', '.join(hit['labels'])}" for hit in source["shared"]]),
        ("Class name in a spatial text", [f"{hit['label']}: {hit['text']}" for hit in source["leaks"] or ()]),
        ("Without the published frame", [f"{hit['label']}: {hit['text']}" for hit in source["misses"] or ()]),
    ):
        if found:
            yield f"- **{what}**: {_some(found)}"
    yield from ("", f"![Cosines between classes]({source['picture']})")


def _length(found: Sequence[Any] | None, otherwise: str) -> str:
    return otherwise if found is None else str(len(found))


def _some(found: Sequence[str]) -> str:
    more = len(found) - _SHOWN
    return "; ".join(map(markdown, found[:_SHOWN])) + (f"; and {more} more (quality.json has all)" if more > 0 else "")
