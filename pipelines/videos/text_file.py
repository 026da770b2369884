"""Read the text of a list or label file, plain or gzip, up to a limit."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from vlmodels.errors import UserError

LARGEST = 256 << 20
"""Bytes of text: some millions of lines. A small gzip file can hold far more than memory has."""

_OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel file, not a text; unpack it, or save the table as CSV",
    b"BZh": "packed with bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ": "packed with xz; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it, or pack it with gzip",
    b"PAR1": "a Parquet file, not a text; save the table as CSV",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path, largest: int = LARGEST) -> str:
    r"""Return the text of a file in UTF-8 (or UTF-16 with its mark), with ``\n`` at the ends of lines.

    Raises:
        UserError: it cannot be read, is larger than ``largest`` bytes once unpacked, damaged, or no text.
    """
    try:
        data = _read(path, largest)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    for start, what in _OTHERS.items():
        if data.startswith(start):
            raise UserError(f"{path}: {what}")
    try:
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read(path: Path, largest: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(largest + 1)
    packed = data.startswith(b"\x1f\x8b")
    if packed and len(data) <= largest:
        with gzip.open(io.BytesIO(data)) as unpacked:
            data = unpacked.read(largest + 1)
    if len(data) > largest:
        what = f"more than {largest >> 20} MiB{' once unpacked' if packed else ''}, too much for a list"
        raise UserError(f"{path}: {what}; split it, or is it another file?")
    return data
