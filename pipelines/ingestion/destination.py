"""Where ingest writes: a folder, or a store for which a folder of this machine holds the small files.

Manifest, index, lists, settings and parts are written in the folder and copied to the store. What lies in the store
decides what is done, so an ingest continues from any machine. Shards never lie in that folder: the task that decodes a
batch uploads them, and then the part that lists them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pipelines.ingestion.store_files import StoreFiles, at_once
from pipelines.shards.index import INDEX, MANIFEST, PARTS, SHARDS
from pipelines.shards.shard_file import Shard
from pipelines.storage.cache import cache_root
from pipelines.storage.place import QUICK, Place, is_uri, try_writing, why
from pipelines.storage.scratch import scratch
from pipelines.videos.kept_lists import LISTS
from vlmodels.errors import UserError

OUR_SHARD = re.compile(r"[0-9a-f]{16}-\d+x\d+x\d+\.arrow(\.\d+\.tmp)?")
OWNER = f"{PARTS}/owner.json"
"""In a store: which ingest writes to it; the last one that began."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The ingest that writes to a store, as ``OWNER`` records it."""

    host: str
    pid: int
    token: str
    time: str

    @classmethod
    def of_this_process(cls, token: str) -> Owner:
        """Describe this process."""
        return cls(socket.gethostname(), os.getpid(), token, datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def from_json(cls, content: bytes) -> Owner | None:
        """Read the record; None if it was cut off while it was written."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            return None

    def to_json(self) -> bytes:
        """Return the record."""
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        return f"on {self.host}, process {self.pid}, since {self.time}"


@dataclass(frozen=True)
class Destination:
    """The place of ingested data; cheap to pickle, so that batches on other machines write to the same one.

    Attributes:
        folder: the folder itself, or the one on the driver's machine that holds the small files of a store.
        uri: the store as the user wrote it, "" for a folder.
        token: the claim of the ingest that writes to it; it is not pickled, as batches need none.
    """

    folder: Path
    uri: str = ""
    token: str = ""

    @classmethod
    def at(cls, out: str | Path) -> Destination:
        """Return the destination at a path or URI; a store is written to as a test.

        Raises:
            UserError: there is no such kind of store or no such bucket, it cannot be reached, or cannot be written to.
        """
        if not is_uri(out):
            return cls(Path(str(out).removeprefix("file://")))
        uri = str(out)
        _check_writable(Place.open(uri, attempts=QUICK))
        return cls(cache_root() / "ingest" / hashlib.sha256(uri.encode()).hexdigest()[:16], uri)

    def resolve(self) -> Destination:
        """Return the same destination with an absolute path, for processes that work elsewhere."""
        return Destination(self.folder.resolve(), self.uri)

    def __str__(self) -> str:
        return self._store.place.uri if self.uri else str(self.folder)

    def __reduce__(self) -> tuple[type[Destination], tuple[Path, str]]:
        return (Destination, (self.folder, self.uri))

    def address(self, file: str) -> str:
        """Return the path or URI of one of its files."""
        return (self._store.place / file).uri if self.uri else str(self.folder / file)

    def unwritable(self, error: OSError, remedy: str = "choose another --out") -> str:
        """Return the message that files cannot be written on this machine, with the remedy."""
        if self.uri:
            return unwritable_cache(error)
        return f"cannot write to {self.folder}: {error.strerror or error}; {remedy}"

    def shard_sizes(self) -> dict[str, int]:
        """Return the sizes (bytes) of the shard files that are there, by name.

        Raises:
            UserError: the store cannot be read.
        """
        if self.uri:
            return {info.base_name: info.size for info in self._store.list_folder(SHARDS)}
        return {path.name: path.stat().st_size for path in (self.folder / SHARDS).iterdir()}

    # ------------------------------------------------------------------------------------------- by the driver

    def take_over(self, say: Callable[[str], None]) -> None:
        """Claim a store, even from another ingest, which then notices before it removes or publishes anything."""
        if not self.uri:
            return
        other = self._owner()
        if other:
            say(f"taking over {self} from an ingest that was cut off, or still runs ({other})")
        self._store.write(OWNER, Owner.of_this_process(self.token).to_json())

    def empty(self) -> None:
        """Remove from a store all that an ingest wrote, the index first: without it the data is unfinished."""
        if not self.uri:
            return
        self._store.remove([INDEX])
        self._store.remove([MANIFEST])
        parts = {f"{PARTS}/{info.base_name}" for info in self._store.list_folder(PARTS)}
        self._store.remove(parts - {OWNER})
        self._remove_shards(self.shard_sizes())

    def refresh(self) -> None:
        """Bring the folder up to date with what earlier runs, here or on other machines, left in the store."""
        if not self.uri:
            return
        self._store.make_folders((SHARDS, PARTS))
        found = self._store.find((INDEX, MANIFEST))
        for name in {INDEX, MANIFEST} - {info.base_name for info in found}:
            (self.folder / name).unlink(missing_ok=True)
        self._store.download(found, self.folder)
        parts = self._store.list_folder(PARTS)
        current = {self.folder / PARTS / info.base_name for info in parts}
        for path in set((self.folder / PARTS).glob("*.*")) - current:
            path.unlink()
        self._store.download(parts, self.folder / PARTS)

    def fetch_parts(self) -> None:
        """Copy the parts that batches have put into the store to the folder.

        Raises:
            UserError: another ingest has taken over the store.
        """
        if self.uri:
            self._check_owner()
            self._store.download(self._store.list_folder(PARTS), self.folder / PARTS)

    def upload(self, file: str) -> None:
        """Copy a file of the folder into the store."""
        if self.uri:
            self._store.upload(self.folder / file, file)

    def publish(self, shards: Collection[Shard]) -> None:
        """Copy the result into the store, the index last, and remove there what it does not need.

        Without ``shards`` there is no index, and the shards and parts that are there stay.

        Raises:
            UserError: the store cannot be written, has lost a shard, or was taken over by another ingest.
        """
        if not self.uri:
            return
        self._check_owner()
        self._replace_lists()
        self.upload(MANIFEST)
        if not shards:
            self._store.remove([OWNER])
            return
        sizes = self.shard_sizes()
        for shard in shards:
            if sizes.get(shard.file) != shard.bytes:
                raise UserError(f"{self.address(SHARDS)}/{shard.file} is missing or cut; run the same command again")
        self._check_owner()
        self.upload(INDEX)
        self._remove_shards(sizes.keys() - {shard.file for shard in shards})
        self._store.remove_folder(PARTS)

    # -------------------------------------------------------------------------------------------- by a batch

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Yield the folder, on this machine, into which a batch writes its shards and its part."""
        if not self.uri:
            yield self.folder
            return
        with scratch("shards") as folder:
            for name in (SHARDS, PARTS):
                (folder / name).mkdir()
            yield folder

    def upload_batch(self, work_folder: Path) -> None:
        """Upload what a batch wrote, the part last.

        Raises:
            UserError: the store cannot be written.
        """
        if self.uri:
            for folder in (SHARDS, PARTS):
                for path in sorted((work_folder / folder).iterdir()):
                    self._store.upload(path, f"{folder}/{path.name}")

    # ---------------------------------------------------------------------------------------------- the store

    @cached_property
    def _store(self) -> StoreFiles:
        return StoreFiles(self.uri)

    def _owner(self) -> Owner | None:
        content = self._store.read(OWNER)
        return Owner.from_json(content) if content is not None else None

    def _check_owner(self) -> None:
        owner = self._owner()
        if owner is None or owner.token != self.token:
            other = f" ({owner})" if owner else ""
            raise UserError(f"another ingest{other} has taken over {self}; run this one again when it has ended")

    def _replace_lists(self) -> None:
        lists = {path.name for path in (self.folder / LISTS).glob("*") if path.is_file()}
        at_once(self.upload, [f"{LISTS}/{name}" for name in sorted(lists)])
        stale = {info.base_name for info in self._store.list_folder(LISTS)} - lists
        self._store.remove([f"{LISTS}/{name}" for name in stale])

    def _remove_shards(self, names: Iterable[str]) -> None:
        self._store.remove([f"{SHARDS}/{name}" for name in names if OUR_SHARD.fullmatch(name)])


def unwritable_cache(error: OSError) -> str:
    """Return the message that this machine's copies of files in a store cannot be written, with the remedy."""
    return (
        f"cannot write to {cache_root()} on {socket.gethostname()}: {error.strerror or error}; "
        "make room, or set VIDADAPT_CACHE to a larger disk"
    )


def _check_writable(place: Place) -> None:
    try:
        try_writing(place)
    except OSError as error:
        raise UserError(f"cannot write to {place.uri}: {why(error)}; correct it, or choose another --out") from error
