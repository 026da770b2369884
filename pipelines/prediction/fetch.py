"""Files of a batch of videos on this machine: local ones where they are, others copied before they are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipelines.prediction.videos import path_of
from pipelines.storage.place import Place, is_uri, why, without_secrets
from pipelines.storage.scratch import scratch
from vlmodels.bounded_copy import copy_within
from vlmodels.errors import UserError

AHEAD = 4
"""Videos that are fetched while others are decoded."""
LARGEST = 16 << 30
"""Bytes of a video that is fetched: a stream without an end would fill the disk."""


class VideoFiles(Sequence[str]):
    """Paths of a batch's videos, in order: asking for one waits until it is fetched, and starts to fetch the next.

    A video that could not be fetched has no file at its path, and its reason in ``problems``, by its place.
    """

    def __init__(
        self, videos: Sequence[str], folder: Path, scratch_folder: Path, pool: ThreadPoolExecutor, limit_s: float
    ) -> None:
        self.problems: dict[int, str] = {}
        self._videos, self._folder, self._scratch = videos, folder, scratch_folder
        self._pool, self._limit_s = pool, limit_s
        self._fetched: dict[int, Future[str]] = {}
        self._asked = 0

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, number: int) -> str:  # type: ignore[override]  # no slices
        for ahead in range(self._asked, min(number + AHEAD, len(self))):
            if is_uri(self._videos[ahead]):
                self._fetched[ahead] = self._pool.submit(self._fetch, ahead)
            self._asked = ahead + 1
        if number in self._fetched:
            return self._fetched[number].result()
        return str(path_of(self._folder, self._videos[number]))

    def drop(self, number: int) -> None:
        """Remove the copy of a video that is no longer needed."""
        if number in self._fetched:
            Path(self._fetched[number].result()).unlink(missing_ok=True)

    def _fetch(self, number: int) -> str:
        uri = self._videos[number]
        target = self._scratch / f"{number}-{without_secrets(uri).rpartition('/')[2][-60:]}"
        try:
            fetch(uri, target, self._limit_s)
        except UserError as error:
            self.problems[number] = str(error)
        except FileNotFoundError:
            web = uri.startswith(("http://", "https://"))  # whose driver says the same of a server that is away
            self.problems[number] = (
                "no such file on the server, or the server cannot be reached" if web else "no such file in the store"
            )
        except Exception as error:  # noqa: BLE001 - whatever a store's driver raises costs this video only
            self.problems[number] = f"cannot be fetched: {why(error)}"
        if number in self.problems:
            target.unlink(missing_ok=True)
        return str(target)


def fetch(uri: str, target: Path, limit_s: float) -> None:
    """Copy a file of a store, or of a web server, to ``target``.

    Raises:
        UserError: it is too large or too slow, or there is no such kind of store.
        OSError: it cannot be read or written.
    """
    place = Place.open(uri)
    with target.open("wb") as file:
        copy_within(
            lambda: place.filesystem.open_input_stream(place.root, compression=None),
            file,
            most=LARGEST,
            too_large=UserError(f"more than {LARGEST >> 30} GB; cut it, or copy it to this machine"),
            seconds=limit_s,
            too_slow=UserError(f"fetching takes more than {limit_s:g} s (--time-limit)"),
        )


@contextmanager
def video_files(videos: Sequence[str], folder: Path, limit_s: float) -> Iterator[VideoFiles]:
    """Yield the files of videos; copies are removed after the block.

    Args:
        videos: paths and URIs.
        folder: what relative paths are relative to.
        limit_s: seconds for fetching each.

    Raises:
        OSError: there is no room for copies.
    """
    if not any(map(is_uri, videos)):
        with ThreadPoolExecutor(1) as pool:
            yield VideoFiles(videos, folder, folder, pool, limit_s)
        return
    with scratch("predict") as copies:
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
        try:
            yield VideoFiles(videos, folder, copies, pool, limit_s)
        finally:
            pool.shutdown(cancel_futures=True)
