"""Videos in stores and folders that a request names by URI: only below what the operator has allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipelines.serving.limits import RefusedError, too_many_bytes
from pipelines.storage.place import Place, is_uri
from vlmodels.bounded_copy import copy_within
from vlmodels.errors import UserError, unprintable

_STRANGE = re.compile(r"[?#%\\]|(^|/)\.\.?(/|$)|//")
"""Not behind a prefix: a query may name another endpoint, the rest may lead out of the prefix."""


@dataclass(frozen=True, slots=True)
class AllowedUris:
    """Prefixes of the URIs that requests may name; with none, they may name nothing.

    Attributes:
        prefixes: ``s3://bucket/videos/``, ``/data/videos/``; each ends with a slash.
        seconds: for reading a stored video.
    """

    prefixes: tuple[str, ...] = ()
    seconds: float = 120.0

    @classmethod
    def of(cls, given: Sequence[str]) -> AllowedUris:
        """Return what ``--allow-uris`` allows.

        Raises:
            UserError: http and https are not fetched: who is asked could lead on to any server of this network.
        """
        for prefix in given:
            if prefix.startswith(("http:", "https:")) or not (is_uri(prefix) or Path(prefix).is_absolute()):
                raise UserError(
                    f"--allow-uris {prefix}: choose a folder by its full path, or a store (s3://BUCKET/DIR)"
                )
        return cls(tuple(prefix.removeprefix("file://").rstrip("/") + "/" for prefix in given))

    def fetch(self, uri: str, target: Path, most: int) -> int:
        """Copy a video that a request names to ``target``; return its bytes.

        Raises:
            RefusedError: 403 if it is not below a prefix, 413 if it is larger than ``most``, 422 if it cannot be read
                or takes longer than ``seconds``.
        """
        where = uri.removeprefix("file://")
        prefix = next((one for one in self.prefixes if where.startswith(one)), None)
        if prefix is None or unprintable(uri) or _STRANGE.search(where[len(prefix) :]):
            allowed = "only URIs below those that --allow-uris names" if self.prefixes else "no URIs: send the file"
            raise RefusedError(403, "uri_not_allowed", f"this server reads {allowed}")
        try:
            return self._copy(self._place(where, prefix), target, most)
        except (OSError, UserError) as error:
            raise RefusedError(422, "no_such_video", "the file cannot be read") from error

    @staticmethod
    def _place(where: str, prefix: str) -> Place:
        if is_uri(where):
            return Place.open(where)
        path = Path(where).resolve()
        if not path.is_relative_to(Path(prefix).resolve()):  # a link that leads out
            raise RefusedError(
                403, "uri_not_allowed", "this server reads only URIs below those that --allow-uris names"
            )
        return Place.open(str(path))

    def _copy(self, place: Place, target: Path, most: int) -> int:
        with target.open("xb") as file:
            return copy_within(
                lambda: _opened(place),
                file,
                most=most,
                too_large=too_many_bytes(most),
                seconds=self.seconds,
                too_slow=RefusedError(422, "too_slow", f"the file was not whole after {self.seconds:g} s"),
            )


def _opened(place: Place) -> Any:
    if place.filesystem.get_file_info(place.root).type != fs.FileType.File:
        raise RefusedError(422, "no_such_video", "there is no such file")
    return place.filesystem.open_input_stream(place.root, compression=None)
