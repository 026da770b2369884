"""What a search prints: hits as text, JSON or CSV, and what was searched."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipelines.prediction.cells import path_cell, text_cell
from pipelines.prediction.search import Ranking
from pipelines.prediction.search_page import Query, time_text
from pipelines.prediction.stored_features import Embeddings

SCORE = (
    "The number beside a hit is the cosine of its feature and the query's, from -1 to 1: it ranks the hits of one "
    "query, but it is no probability, and numbers of two queries or models do not compare."
)
_DIGITS = 6


def text_lines(queries: Sequence[Query], ranking: Ranking) -> Iterator[str]:
    """Yield a query, and its hits below it, best first."""
    for query, hits in zip(queries, ranking.hits, strict=True):
        yield query.text
        for number, hit in enumerate(hits, 1):
            yield f"  {number:3d}  {hit.score:6.3f}  {hit.video}{'  ' + time_text(hit) if time_text(hit) else ''}"


def json_lines(queries: Sequence[Query], ranking: Ranking) -> Iterator[str]:
    """Yield an object for each query: ``query``, ``hits`` (video, start, end, score)."""
    for query, found in zip(queries, ranking.hits, strict=True):
        hits = [
            {"video": hit.video, "start": hit.start, "end": hit.end, "score": round(hit.score, _DIGITS)}
            for hit in found
        ]
        yield json.dumps({"query": query.text, "hits": hits}, ensure_ascii=False)


def csv_lines(queries: Sequence[Query], ranking: Ranking) -> Iterator[str]:
    """Yield a heading, and a line for each hit."""
    yield "query,rank,score,video,start,end"
    for query, hits in zip(queries, ranking.hits, strict=True):
        for number, hit in enumerate(hits, 1):
            row = io.StringIO()
            csv.writer(row, lineterminator="").writerow(
                (text_cell(query.text), number, f"{hit.score:.{_DIGITS}f}", path_cell(hit.video), hit.start, hit.end)
            )
            yield row.getvalue()


LINES: Mapping[str, Callable[[Sequence[Query], Ranking], Iterator[str]]] = {
    "text": text_lines,
    "json": json_lines,
    "csv": csv_lines,
}
"""How hits can be printed."""


def searched(embeddings: Embeddings, ranking: Ranking, *, every_window: bool = False) -> str:
    """Return what was searched, in a sentence."""
    identity = embeddings.identity
    what = f"Searched {ranking.searched:,} features in {embeddings.folder}, of {identity.model} (run {identity.run})"
    failed = f"; {ranking.failed:,} more rows have none, as their video could not be read" if ranking.failed else ""
    return (
        what
        + failed
        + ("; every window is listed by itself." if every_window else "; a video is listed once, with its best part.")
    )


def problems(embeddings: Embeddings, ranking: Ranking) -> Iterator[str]:
    """Yield what could not be searched."""
    if embeddings.unfinished:
        yield embeddings.unfinished
    for name, reason in ranking.damaged.items():
        yield f"{name} is damaged ({reason}); what it holds is missing here: make the embeddings again"
    if ranking.broken:
        yield (
            f"{ranking.broken:,} features are not finite or not normalised and were left out; make the embeddings again"
        )
