"""Which shards of an earlier ingest are whole: those that have the bytes that were written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipelines.config.text import plural
from pipelines.shards.index import SHARDS
from pipelines.storage.cache import AT_ONCE, CHUNK, reading
from pipelines.storage.digests import KnownDigests
from pipelines.storage.place import Place

if TYPE_CHECKING:
    from pipelines.ingestion.destination import Destination
    from pipelines.shards.shard_file import Shard

SAY_BYTES_FROM = 2 << 30
"""Bytes of shards from which it is reported that they are read."""


def whole_shards(
    destination: Destination, shards: Mapping[str, Shard], *, verify: bool, say: Callable[[str], None]
) -> dict[str, int]:
    """Return the sizes (bytes) of the shard files that are whole, by name.

    Files of a folder are read unless this machine has read them since they changed last. Those of a store are compared
    by size, as whoever fetches one compares its SHA-256.

    Args:
        destination: of the ingest.
        shards: that the earlier ingest left, by name.
        verify: read all, also those of a store.
        say: gets a line for each shard that is damaged, and one for those that are missing or cut.

    Raises:
        UserError: the store cannot be read.
    """
    sizes = destination.shard_sizes()
    if lines := _lost(shards, sizes):
        shown = ", ".join(lines[:3]) + (f" and {plural(len(lines) - 3, 'more')}" if len(lines) > 3 else "")
        say(f"{destination.address(SHARDS)}: {shown}; their clips are decoded again")
    if destination.uri and not verify:
        return sizes
    there = [shard for name, shard in shards.items() if sizes.get(name) == shard.bytes]
    digest_of = _in_store(destination) if destination.uri else _in_folder(destination, there, verify=verify, say=say)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        digests = list(threads.map(digest_of, there))
    whole = {}
    for shard, digest in zip(there, digests, strict=True):
        if digest == shard.sha256:
            whole[shard.file] = shard.bytes
        else:
            say(f"{destination.address(SHARDS)}/{shard.file} is damaged; its clips are decoded again")
    return whole


def _lost(shards: Mapping[str, Shard], sizes: Mapping[str, int]) -> list[str]:
    """Return a text for each shard whose file is missing or has another size."""
    missing = [f"{name} is missing" for name in sorted(shards.keys() - sizes.keys())]
    return missing + [
        f"{name} has {sizes[name]} bytes instead of {shard.bytes}"
        for name, shard in sorted(shards.items())
        if name in sizes and sizes[name] != shard.bytes
    ]


def _in_folder(
    destination: Destination, shards: Sequence[Shard], *, verify: bool, say: Callable[[str], None]
) -> Callable[[Shard], str]:
    """Read what has to be read; return what gives a shard's digest, "" if it cannot be read."""
    folder = destination.folder.resolve()
    known = KnownDigests(folder)
    paths = [folder / SHARDS / shard.file for shard in shards]
    unread = paths if verify else known.unknown(paths)
    size = sum(path.stat().st_size for path in unread)
    if size >= SAY_BYTES_FROM:
        say(f"reading {plural(len(unread), 'shard')} ({size / 1e9:.1f} GB) once, to find damage")
    known.read_all(unread, again=verify)

    def digest_of(shard: Shard) -> str:
        try:
            return known.sha256(folder / SHARDS / shard.file)
        except OSError:
            return ""

    return digest_of


def _in_store(destination: Destination) -> Callable[[Shard], str]:
    place = Place.open(destination.uri) / SHARDS

    def digest_of(shard: Shard) -> str:
        digest = hashlib.sha256()
        source = place / shard.file
        with reading(source), source.filesystem.open_input_stream(source.root, compression=None) as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    return digest_of
