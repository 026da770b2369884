"""Where ingest puts things: a folder, or a store with a folder of this machine as its desk.

The desk is where manifest, index, lists, settings and parts are made; the store has the last word about what is done,
so an ingest goes on from any machine. Shards never lie on the desk: whoever decodes a batch uploads them, and then
the part that speaks of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipelines.shards.index import INDEX, MANIFEST, PARTS, SHARDS
from pipelines.shards.shard_file import Shard
from pipelines.storage.cache import cache_root
from pipelines.storage.files import write_whole
from pipelines.storage.place import QUICK, Place, is_uri, why
from pipelines.storage.scratch import scratch
from pipelines.videos.kept_lists import LISTS
from vlmodels.errors import UserError

OUR_SHARD = re.compile(r"[0-9a-f]{16}-\d+x\d+x\d+\.arrow(\.\d+\.tmp)?")
OWNER = f"{PARTS}/owner.json"
"""In a store: which ingest writes to it, the one that came last."""
AT_ONCE = 16
"""Small files moved side by side; each takes a round trip or two."""


@dataclass(frozen=True)
class Destination:
    """The place of ingested data; cheap to pickle, so that batches on other machines write to the same one.

    Attributes:
        desk: the folder itself, or the store's desk on the driver's machine.
        uri: the store as the user wrote it, "" for a folder.
        token: by which the ingest that writes to it knows its claim in the store; batches need none.
    """

    desk: Path
    uri: str = ""
    token: str = ""

    @classmethod
    def at(cls, out: str | Path) -> Destination:
        """Name a folder, or a store, of which it is made sure that it can be written to.

        Raises:
            UserError: no such kind of store, no such bucket, no right to write, or it cannot be reached.
        """
        if not is_uri(out):
            return cls(Path(str(out).removeprefix("file://")))
        uri = str(out)
        _check_writable(Place.open(uri, attempts=QUICK))
        return cls(cache_root() / "ingest" / hashlib.sha256(uri.encode()).hexdigest()[:16], uri)

    @classmethod
    def of(cls, out: Path | Destination) -> Destination:
        """The destination itself, or that of a folder."""
        return out if isinstance(out, Destination) else cls(out)

    def resolve(self) -> Destination:
        """The same with an absolute path, for processes that work elsewhere."""
        return Destination(self.desk.resolve(), self.uri)

    def __str__(self) -> str:
        return self._place.uri if self.uri else str(self.desk)

    def name(self, file: str) -> str:
        """What a file of it is called."""
        return (self._place / file).uri if self.uri else str(self.desk / file)

    def unwritable(self, error: OSError, remedy: str = "choose another --out") -> str:
        """Say that files cannot be written on this machine, and what helps."""
        reason = error.strerror or error
        if self.uri:
            where = f"{cache_root()} on {socket.gethostname()}"
            return f"cannot write to {where}: {reason}; make room, or set VIDADAPT_CACHE to a larger disk"
        return f"cannot write to {self.desk}: {reason}; {remedy}"

    def shard_sizes(self) -> dict[str, int]:
        """Bytes of the shard files that are there, by name.

        Raises:
            UserError: the store cannot be read.
        """
        if self.uri:
            return {info.base_name: info.size for info in self._files(SHARDS)}
        return {path.name: path.stat().st_size for path in (self.desk / SHARDS).iterdir()}

    # ------------------------------------------------------------------------------------------- by the driver

    def claim(self, say: Callable[[str], None]) -> None:
        """Take over a store, whoever had it; another ingest finds out before it removes or publishes anything."""
        if not self.uri:
            return
        if other := self._owner():
            say(f"taking over {self} from an ingest that was cut off, or still runs ({_told(other)})")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": self.token, "time": now}
        with self._reached():
            (self._place / OWNER).write(json.dumps(mine).encode())

    def _owner(self) -> dict[str, Any]:
        """What the last claim says; empty where there is none."""
        with self._reached():
            try:
                found: dict[str, Any] = json.loads((self._place / OWNER).read())
            except (FileNotFoundError, ValueError):  # a claim that was cut off is none
                return {}
        return found

    def _check_owner(self) -> None:
        owner = self._owner()
        if owner.get("token") != self.token:
            other = f" ({_told(owner)})" if owner else ""
            raise UserError(f"another ingest{other} has taken over {self}; run this one again when it has ended")

    def clear(self) -> None:
        """Remove from a store all that an ingest wrote, the index first: from then on it is unfinished."""
        if self.uri:
            with self._reached():
                self._remove([INDEX])
                self._remove([MANIFEST])
                parts = {f"{PARTS}/{info.base_name}" for info in self._files(PARTS)}
                self._remove(parts - {OWNER})
            self._remove_shards(self.shard_sizes())

    def begin(self) -> None:
        """Bring the desk up to date with what earlier runs, here or on other machines, left in the store."""
        if not self.uri:
            return
        with self._reached():
            for name in (SHARDS, PARTS):
                self._place.filesystem.create_dir((self._place / name).root, recursive=True)
            listed = self._place.filesystem.get_file_info([(self._place / name).root for name in (INDEX, MANIFEST)])
            there = [info for info in listed if info.type == fs.FileType.File]
        for name in {INDEX, MANIFEST} - {info.base_name for info in there}:
            (self.desk / name).unlink(missing_ok=True)
        self._pull(there, self.desk)
        parts = self._files(PARTS)
        for path in set((self.desk / PARTS).glob("*.*")) - {self.desk / PARTS / info.base_name for info in parts}:
            path.unlink()
        self._pull(parts, self.desk / PARTS)

    def fetch_parts(self) -> None:
        """Bring to the desk the parts that batches have put into the store."""
        if self.uri:
            self._check_owner()
            self._pull(self._files(PARTS), self.desk / PARTS)

    def put(self, file: str) -> None:
        """Copy a file of the desk into the store."""
        if self.uri:
            self._upload(self.desk / file, file)

    def publish(self, shards: Collection[Shard]) -> None:
        """Copy the result into the store, the index last, and remove there what it does not need.

        Without ``shards`` there is no index, and what is there stays.

        Raises:
            UserError: the store cannot be written, lost a shard meanwhile, or was taken over by another ingest.
        """
        if not self.uri:
            return
        self._check_owner()
        lists = sorted(path.name for path in (self.desk / LISTS).glob("*") if path.is_file())
        _each(self.put, [f"{LISTS}/{name}" for name in lists])
        gone = {info.base_name for info in self._files(LISTS)} - set(lists)
        with self._reached():
            self._remove([f"{LISTS}/{name}" for name in gone])
        self.put(MANIFEST)
        if not shards:
            with self._reached():
                self._remove([OWNER])
            return
        sizes = self.shard_sizes()
        for shard in shards:
            if sizes.get(shard.file) != shard.bytes:
                raise UserError(f"{self.name(SHARDS)}/{shard.file} is missing or cut; run the same command again")
        self._check_owner()
        self.put(INDEX)
        self._remove_shards(sizes.keys() - {shard.file for shard in shards})
        with self._reached():
            self._drop(PARTS)

    # -------------------------------------------------------------------------------------------- by a batch

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """Yield the folder, on this machine, into which a batch writes its shards and its part."""
        if not self.uri:
            yield self.desk
            return
        with scratch("shards") as folder:
            for name in (SHARDS, PARTS):
                (folder / name).mkdir()
            yield folder

    def deliver(self, workplace: Path) -> None:
        """Upload what a batch wrote, the part last: an object is whole or not there.

        Raises:
            UserError: the store cannot be written.
        """
        if self.uri:
            for folder in (SHARDS, PARTS):
                for path in sorted((workplace / folder).iterdir()):
                    self._upload(path, f"{folder}/{path.name}")

    # ---------------------------------------------------------------------------------------------- the store

    @cached_property
    def _place(self) -> Place:
        return Place.open(self.uri)

    def __reduce__(self) -> tuple[type[Destination], tuple[Path, str]]:
        return (Destination, (self.desk, self.uri))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._place.uri}: {why(error)}; what is done is kept, the same command goes on from there"
            ) from error

    def _files(self, folder: str) -> list[fs.FileInfo]:
        with self._reached():
            infos = self._place.filesystem.get_file_info(
                fs.FileSelector((self._place / folder).root, allow_not_found=True)
            )
        return [info for info in infos if info.type == fs.FileType.File]

    def _upload(self, path: Path, file: str) -> None:
        with self._reached():
            fs.copy_files(
                str(path),
                (self._place / file).root,
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self._place.filesystem,
            )

    def _pull(self, infos: Sequence[fs.FileInfo], folder: Path) -> None:
        _each(partial(self._fetch, folder), infos)

    def _fetch(self, folder: Path, info: fs.FileInfo) -> None:
        target = folder / info.base_name
        if target.exists() and (target.stat().st_size, target.stat().st_mtime_ns) == (info.size, info.mtime_ns):
            return
        with self._reached(), self._place.filesystem.open_input_stream(info.path, compression=None) as stream:
            content = stream.read()
        write_whole(target, lambda path: path.write_bytes(content))
        if info.mtime_ns is not None:  # some stores keep no times
            os.utime(target, ns=(info.mtime_ns, info.mtime_ns))

    def _remove(self, files: Collection[str]) -> None:
        for file in files:
            try:
                self._place.filesystem.delete_file((self._place / file).root)
            except FileNotFoundError:
                continue

    def _remove_shards(self, names: Collection[str]) -> None:
        def remove(name: str) -> None:
            with self._reached():
                self._remove([f"{SHARDS}/{name}"])

        _each(remove, [name for name in names if OUR_SHARD.fullmatch(name)])

    def _drop(self, folder: str) -> None:
        try:
            self._place.filesystem.delete_dir((self._place / folder).root)
        except FileNotFoundError:
            return


def _told(owner: dict[str, Any]) -> str:
    return f"on {owner.get('host')}, process {owner.get('pid')}, since {owner.get('time')}"


def _each(do: Callable[[Any], None], things: Iterable[Any]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(do, things))


def _check_writable(place: Place) -> None:
    probe = place / f".writable-{socket.gethostname()}-{os.getpid()}"
    try:
        place.filesystem.create_dir(place.root, recursive=True)
        probe.write(b"1")
        place.filesystem.delete_file(probe.root)
    except OSError as error:
        raise UserError(f"cannot write to {place.uri}: {why(error)}; mend it, or choose another --out") from error
