"""The description store: one SQLite file with every valid answer and its provenance."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_descriptions.budget import AverageCost
from llm_descriptions.database import NEW_COLUMNS, REMEDY, Database, is_current
from llm_descriptions.errors import DescriptionError
from llm_descriptions.prompts import check_kind
from llm_descriptions.rows import wrong_count, wrong_key
from llm_descriptions.sources import TextSource, choose_sources

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

FILE_NAME = "descriptions.sqlite"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The key of an answer: ``n`` texts of one kind for one class, from one prompt set and model."""

    label: str
    kind: str
    prompt_id: str
    model: str
    n: int


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The provenance of texts: a server or, if ``origin`` is set, a published file.

    Attributes:
        origin: the published file.
        host: the server's host and port.
        served_model: the server's name of the model that answered.
        prompt_tokens: tokens of all calls for this question.
        completion_tokens: tokens of all replies to this question.
        calls: calls for this question, failed ones too.
        seconds: time from the first call to the valid answer.
        created: time of the valid answer (UTC, ISO 8601).
    """

    origin: str = ""
    host: str = ""
    served_model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    created: str = field(default_factory=_now)


class DescriptionStore:
    """Descriptions by key in the SQLite file ``path`` (WAL mode), which the first ``put`` creates.

    Every call opens and closes its own connection, so a store can be sent to other processes, several processes can
    write at the same time, and between calls the folder has this one file only. Every method raises
    ``DescriptionError`` if the file is not a store, or cannot be read or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._database = Database(self.path)

    def get(self, key: Key) -> tuple[str, ...] | None:
        """Return the texts of ``key``, or None."""
        with self._database.reading() as connection:
            row = None if connection is None else _select(connection, key, "texts, origin")
        return None if row is None else self._parsed(row[0], row[1], key)

    def provenance(self, key: Key) -> Provenance | None:
        """Return the provenance of the texts of ``key``, or None if there are none."""
        with self._database.reading() as connection:
            if connection is None:
                return None
            names = [field.name for field in fields(Provenance)]
            if not is_current(connection):
                names = [name for name in names if name not in NEW_COLUMNS]
            row = _select(connection, key, ", ".join(names))
        return None if row is None else Provenance(**dict(zip(names, row, strict=True)))

    def average_cost(self, *, prompt_id: str, model: str, host: str, n: int) -> AverageCost | None:
        """Compute the mean cost of the stored answers of one prompt set, model and server; None without any."""
        with self._database.reading() as connection:
            if connection is None or not is_current(connection):
                return None
            row = connection.execute(
                "SELECT count(*), avg(calls), avg(prompt_tokens), avg(completion_tokens), avg(seconds)"
                " FROM description WHERE prompt_id = ? AND model = ? AND host = ? AND n = ? AND calls > 0",
                (prompt_id, model, host, n),
            ).fetchone()
        return AverageCost(*row) if row[0] else None

    def put(self, key: Key, texts: Sequence[str], provenance: Provenance) -> tuple[str, ...]:
        """Store ``texts``, unless ``key`` has texts already, and return the stored ones.

        Raises:
            DescriptionError: the texts are not a complete answer: ``key.n`` distinct strings that are not blank; from
                a published file, any number of strings that are not blank. Nothing is stored.
        """
        return self.put_all({key: texts}, provenance)[key]

    def put_all(self, entries: Mapping[Key, Sequence[str]], provenance: Provenance) -> dict[Key, tuple[str, ...]]:
        """Store many entries of one provenance, all or none; otherwise like ``put``.

        Raises:
            DescriptionError: as ``put``, or a published file has other texts for a key than the store.
        """
        for key, texts in entries.items():
            check_texts(key, texts, published=bool(provenance.origin))
        columns = asdict(provenance)
        with self._database.writing() as connection:
            for key, texts in entries.items():
                row = asdict(key) | columns | {"texts": json.dumps(list(texts), ensure_ascii=False)}
                names = ", ".join(row)
                placeholders = ", ".join(f":{name}" for name in row)
                connection.execute(  # the names are this module's own
                    f"INSERT INTO description ({names}) VALUES ({placeholders}) ON CONFLICT DO NOTHING",  # noqa: S608
                    row,
                )
            stored = {key: self._texts(connection, key) for key in entries}
            other = [key.label for key, texts in entries.items() if stored[key] != tuple(texts)]
            if provenance.origin and other:
                raise DescriptionError(
                    f"{self.path} already has other texts than {provenance.origin} for {len(other)} classes: "
                    f"{', '.join(other)}; delete it or choose another --out"
                )
            return stored

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        """Keep the file open, which makes each ``put`` inside this context about twenty times faster.

        SQLite cleans up when the last connection closes; this context has one until its end.
        """
        with self._database.writing():
            pass
        with self._database.reading() as connection:
            assert connection is not None
            yield

    def keys(self) -> list[Key]:
        """Return all keys, sorted."""
        with self._database.reading() as connection:
            if connection is None:
                return []
            rows = connection.execute("SELECT label, kind, prompt_id, model, n FROM description").fetchall()
        for row in rows:
            if problem := wrong_key(row):
                raise DescriptionError(f"{self.path} is damaged: {problem}; {REMEDY}")
        return sorted(Key(*row) for row in rows)

    def sources(
        self,
        labels: Sequence[str],
        kinds: Sequence[str],
        *,
        n: int | None = None,
        model: str | None = None,
        prompt_id: str | None = None,
    ) -> dict[str, TextSource]:
        """Choose, for each kind, the one source from which ``bank`` takes its texts.

        A source must have the given ``n``, ``model`` and ``prompt_id``, and *every* label: texts of one kind are never
        mixed from several sources.

        Raises:
            DescriptionError: for some kind no source has all labels (the message names the missing ones), or several
                have (it names these sources).
        """
        for kind in kinds:
            check_kind(kind)
        filters = {"n": n, "model": model, "prompt_id": prompt_id}
        labels_by_source: dict[str, dict[TextSource, set[str]]] = {kind: {} for kind in kinds}
        for key in self.keys():
            matches = all(value is None or getattr(key, name) == value for name, value in filters.items())
            if matches and key.kind in labels_by_source:
                source = TextSource(prompt_id=key.prompt_id, model=key.model, n=key.n)
                labels_by_source[key.kind].setdefault(source, set()).add(key.label)
        return choose_sources(labels_by_source, labels, where=self.path, filters=filters)

    def bank(
        self,
        labels: Sequence[str],
        kinds: Sequence[str],
        *,
        n: int | None = None,
        model: str | None = None,
        prompt_id: str | None = None,
    ) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return ``{kind: {label: texts}}`` in the order of ``labels``, from one source per kind.

        A published class may have fewer or more texts than ``n``.

        Raises:
            DescriptionError: as ``sources``.
        """
        chosen = self.sources(labels, kinds, n=n, model=model, prompt_id=prompt_id)
        with self._database.reading() as connection:
            assert connection is not None or not labels
            return {
                kind: {
                    label: self._texts(connection, Key(label, kind, source.prompt_id, source.model, source.n))
                    for label in labels
                }
                for kind, source in chosen.items()
            }

    def digest(
        self,
        labels: Sequence[str],
        kinds: Sequence[str],
        *,
        n: int | None = None,
        model: str | None = None,
        prompt_id: str | None = None,
    ) -> str:
        """Return the SHA-256 (hex) of what ``bank`` returns; the order of labels and kinds does not change it."""
        bank = self.bank(labels, kinds, n=n, model=model, prompt_id=prompt_id)
        text = json.dumps(bank, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _texts(self, connection: sqlite3.Connection | None, key: Key) -> tuple[str, ...]:
        assert connection is not None
        row = _select(connection, key, "texts, origin")
        assert row is not None
        return self._parsed(row[0], row[1], key)

    def _parsed(self, content: Any, origin: Any, key: Key) -> tuple[str, ...]:
        """Return the texts in a column of JSON."""
        try:
            texts = json.loads(content)
        except (ValueError, TypeError, RecursionError):
            texts = None
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise DescriptionError(f"{self.path} is damaged: the texts of '{key.label:.100}' cannot be read; {REMEDY}")
        if problem := wrong_count(key.label, key.n, len(texts), origin):
            raise DescriptionError(f"{self.path} is damaged: {problem}; {REMEDY}")
        return tuple(texts)


def _select(connection: sqlite3.Connection, key: Key, columns: str) -> tuple[Any, ...] | None:
    conditions = " AND ".join(f"{name} = :{name}" for name in asdict(key))
    query = f"SELECT {columns} FROM description WHERE {conditions}"  # noqa: S608 - this module's own column names
    row: tuple[Any, ...] | None = connection.execute(query, asdict(key)).fetchone()
    return row


def check_texts(key: Key, texts: Sequence[str], *, published: bool) -> None:
    """Raise ``DescriptionError`` if ``texts`` are not a complete answer to ``key`` (see ``DescriptionStore.put``)."""
    check_kind(key.kind)
    name = f"the {key.kind} descriptions of '{key.label}'"
    if not key.label.strip() or key.n < 1:
        raise DescriptionError(f"a class name is blank or n is below 1: {key}")
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DescriptionError(f"{name} must be non-empty strings, got {list(texts)!r}")
    if published:
        return
    if len(texts) != key.n:
        raise DescriptionError(f"{name} must be {key.n} strings, got {len(texts)}")
    if len({" ".join(text.casefold().split()) for text in texts}) != len(texts):
        raise DescriptionError(f"{name} must be distinct, got {list(texts)!r}")
