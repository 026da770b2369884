"""Names of videos: their uris, the clips that they become, and the source videos that they were cut from."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath


def uri_of(listed: str) -> str:
    """Return a listed path in the form of uris: with slashes, without ``./`` and double slashes except after a scheme.

    Backslashes are the separators of lists that were written on Windows.
    """
    scheme, sign, path = listed.replace("\\", "/").rpartition("://")
    plain = PurePosixPath(path).as_posix() if "//" in path or "./" in path else path
    return f"{scheme}{sign}{plain}"


_GROUPED = re.compile(r"^(.+_g\d+)_c\d+$|^(.+)_[fhlu]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+$")


def clip_id(uri: str) -> str:
    """Return the name of a clip: the first 16 hexadecimal digits of its uri's SHA-256."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def group_of(uri: str) -> str:
    """Return the source video of a clip if its name shows it, else its uri without suffix.

    ``v_X_g03`` of ``v_X_g03_c01`` (UCF-101), ``Film_pour`` of ``Film_pour_u_cm_np1_fr_med_0`` (HMDB-51). Folders may
    use any other name again (``A/0001.mp4``, ``B/0001.mp4``), so such a name alone shows no source.
    """
    path = PurePosixPath(uri)
    match = _GROUPED.match(path.stem)
    return (match.group(1) or match.group(2)) if match else str(path.parent / path.stem)
