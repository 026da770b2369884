"""Shards are compared with the index before they are used: each once on a machine, for each state of its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.shards.index import INDEX, MANIFEST, Index
from pipelines.shards.shard_cache import ShardCache
from pipelines.shards.shard_file import Shard
from pipelines.storage.digests import KnownDigests
from vlmodels.errors import UserError

Announce = Callable[[int, int], None]
"""Gets the number of shards that are about to be read, and their bytes."""

_IDENTITY = ("clip_id", "label", "group", "split", "sha256", "decoder", "n_frames", "status")
"""Columns of a clip that are in the digest of data; the first version had the decoder among them."""


@dataclass(frozen=True)
class ShardCheck:
    """The shards of a data set on this machine, whole or not.

    Attributes:
        shards: as the index lists them, by name.
        folder: in which they lie.
        known: what this machine has read.
        cache: that fetches them from a store; None for local data.
    """

    shards: dict[str, Shard]
    folder: Path
    known: KnownDigests
    cache: ShardCache | None = None

    def whole(self, name: str) -> Path:
        """Return the path of a shard that fits the index; a damaged copy of a store's is fetched again.

        Raises:
            UserError: it does not fit, cannot be read, or cannot be fetched.
        """
        path = self.cache.ready(name) if self.cache else self.folder / name
        if self._fits(path):
            return path
        if self.cache is None:
            raise UserError(
                f"{path} is damaged: its SHA-256 is not the recorded one; run the same pipelines/ingest.py command "
                "again, which makes it anew"
            )
        path.unlink(missing_ok=True)
        return self.cache.ready(name)  # checks what it fetches

    def check(self, names: Iterable[str], announce: Announce, *, again: bool = False) -> None:
        """Check shards, several at a time; those of a store that are not on this machine are checked when they come.

        Args:
            names: of the shards.
            announce: called if there is something to read.
            again: read also what is known.

        Raises:
            UserError: naming the first that is damaged.
        """
        here = [name for name in sorted(set(names)) if self.cache is None or self.cache.cached(name)]
        paths = [self.folder / name for name in here]
        if unread := paths if again else self.known.unknown(paths):
            announce(len(unread), sum(self.shards[path.name].bytes for path in unread))
            self.known.read_all(unread, again=again)
        for name in here:
            self.whole(name)

    def _fits(self, path: Path) -> bool:
        try:
            return self.known.sha256(path) == self.shards[path.name].sha256
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def check_content(index: Index, manifest: pa.Table, folder: Path, known: KnownDigests) -> str:
    """Return what is wrong with an index without a hash of its own and the manifest; "" if they fit the digest.

    It takes seconds for large data, and is done once on each machine for each state of the index.
    """
    if index.hashed:
        return ""
    path = folder / INDEX
    fits = known.sha256(path, compute=lambda _: _content_digest(index, manifest)) == index.digest
    return "" if fits else f"{path} is damaged: its digest is not that of its settings, its classes and {MANIFEST}"


def _content_digest(index: Index, manifest: pa.Table) -> str:
    """Return the digest of the content, as ingests record it now or did before, whichever the index has."""
    found = ""
    for names in (_IDENTITY, [name for name in _IDENTITY if name != "decoder"]):
        columns: Sequence[list[object]] = [manifest.column(name).to_pylist() for name in names]
        content = [dict(index.decode), index.classes, list(zip(*columns, strict=True))]
        found = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        if found == index.digest:
            break
    return found
