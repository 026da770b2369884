"""The page of a search: for each query its hits, with a picture of each; one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.prediction.search import Hit, Ranking
from pipelines.prediction.thumbnails import thumbnails
from pipelines.reports.page import write_page
from pipelines.storage.place import is_uri
from vlmodels.errors import UserError, shortened
from vlmodels.paths import is_folder

TEMPLATE = Path(__file__).parent / "templates" / "search.html.j2"
MOST_QUERIES = 100
MOST_PICTURES = 400
"""Pictures of a page, of about 10 kB each."""


@dataclass(frozen=True, slots=True)
class Query:
    """What was searched for: a text, or with ``video`` an example and its path."""

    text: str
    video: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A hit as it is shown: ``picture`` is a ``data:`` address, or "" where it is ``missing`` for a reason."""

    name: str
    folder: str
    time: str
    score: str
    address: str
    picture: str
    missing: str


@dataclass(frozen=True, slots=True)
class Section:
    """A query and its hits as they are shown; ``picture`` is the example's."""

    text: str
    picture: str
    cards: tuple[Card, ...]


def write_search(
    path: Path,
    queries: Sequence[Query],
    ranking: Ranking,
    *,
    summary: str,
    reading: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page; return its path.

    Args:
        path: of the page.
        queries: what was searched for.
        ranking: its hits, in the same order.
        summary: what was searched, in a sentence.
        reading: what a score is, in a sentence.
        notes: what went wrong, each in a sentence.

    Raises:
        UserError: the page cannot be written.
    """
    if is_folder(path):
        raise UserError(f"--page {path} is a folder; name a file in it, such as {path / 'search.html'}")
    shown = list(zip(queries, ranking.hits, strict=True))[:MOST_QUERIES]
    examples = [(query.video, None, None) for query, _ in shown if query.video is not None]
    hits = [(hit.video, hit.start, hit.end) for rank in _ranks(shown) for hit in rank]
    places = list(dict.fromkeys([*examples, *hits]))
    pictures = thumbnails(places[:MOST_PICTURES])
    later = ("", f"the page has {MOST_PICTURES} pictures at most")
    sections = [
        Section(
            query.text,
            pictures.get((query.video, None, None), later)[0] if query.video is not None else "",
            tuple(_card(hit, *pictures.get((hit.video, hit.start, hit.end), later)) for hit in found),
        )
        for query, found in shown
    ]
    more = len(queries) - len(shown)
    extra = [f"{more} more queries are not on this page; --json and --csv have all."] if more else []
    title = shortened(queries[0].text, 80) if len(queries) == 1 else "Search"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_page(
            path,
            TEMPLATE,
            title=f"Videos: {title}" if len(queries) == 1 else title,
            width=75,
            summary=summary,
            reading=reading,
            notes=[*notes, *extra],
            found=sections,
        )
    except OSError as error:
        raise UserError(f"--page {path} cannot be written: {error.strerror or error}; name another file") from error


def _ranks(shown: Sequence[tuple[Query, Sequence[Hit]]]) -> list[list[Hit]]:
    """Return the hits rank by rank, so that the best of each query get a picture first."""
    deepest = max((len(found) for _, found in shown), default=0)
    return [[found[rank] for _, found in shown if rank < len(found)] for rank in range(deepest)]


def _card(hit: Hit, picture: str, missing: str) -> Card:
    address = hit.video if is_uri(hit.video) else Path(hit.video).absolute().as_uri()
    name = PurePosixPath(hit.video.replace("\\", "/"))
    time = time_text(hit)
    return Card(
        name=name.name or hit.video,
        folder=shortened(str(name.parent), 120) if str(name.parent) != "." else "",
        time=time,
        score=f"{hit.score:.3f}",
        address=f"{address}#t={hit.start:.3f}" if hit.start is not None else address,
        picture=picture,
        missing=missing,
    )


def time_text(hit: Hit) -> str:
    """Return the seconds of a hit as a player counts them: ``1:02.5-1:06.5``; "" for a whole video."""
    if hit.start is None and hit.end is None:
        return ""
    return f"{_clock(hit.start or 0)}-{'end' if hit.end is None else _clock(hit.end)}"


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
