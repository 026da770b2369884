"""Reads a Parquet column of fixed-size lists of float32 at the speed of the disk, where it is stored plainly.

pyarrow decodes the levels of every single number of a list, at 4 to 6 s a million lists of 512 on one core (measured
with ``benchmarks/search.py``). But in a plain, uncompressed page the numbers lie one after another behind the levels.
Here the pages' headers are read, and the numbers go straight into an array. Whatever is stored otherwise is left to
pyarrow: ``plain_column`` then returns None.

Format: https://github.com/apache/parquet-format (README.md: nested encoding, data pages; parquet.thrift: PageHeader).
"""

# Shapes: R row of a part, N row with a feature, E length of a feature.

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_HEADER = 512
"""Bytes that a page's header has at most, without the statistics of long texts; float32 has none."""
_DATA_PAGE, _DATA_PAGE_2, _PLAIN, _RLE = 0, 3, 0, 3
_STRUCT = 12


class PageError(ValueError):
    """A page is damaged, or of a kind that is not read here."""


@dataclass(frozen=True, slots=True)
class PlainColumn:
    """Where a column's numbers are in a file: the first byte and the bytes of its pages, for each row group.

    Attributes:
        path: of the file.
        dim: E.
        chunks: (first byte, bytes) of the pages of each row group.
        counts: rows that have a feature, of each row group.
    """

    path: Path
    dim: int
    chunks: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]


class PlainReader:
    """Reads the rows of a plain column that have a feature, in order; a context that holds the file open."""

    def __init__(self, column: PlainColumn) -> None:
        self._column = column
        self._buffer = np.empty((0, column.dim), np.float32)
        self._pages: Iterator[tuple[int, int]] = iter(())
        self._file = -1
        self._at = self._left = 0

    def __enter__(self) -> Self:
        self._file = os.open(self._column.path, os.O_RDONLY)
        self._pages = self._all_pages()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def take(self, rows: int) -> NDArray[np.float32]:
        """Return the next ``rows`` features (N,E); the array is valid until the next call.

        Raises:
            PageError: a page is damaged.
            OSError: the file cannot be read.
        """
        if rows > len(self._buffer):
            self._buffer = np.empty((rows, self._column.dim), np.float32)
        wanted = self._buffer[:rows].reshape(-1).view(np.uint8).data
        filled = 0
        while filled < len(wanted):
            if not self._left:
                self._at, self._left = next(self._pages, (0, 0))
                if not self._left:
                    raise PageError("it has fewer features than its footer says")
            taken = min(self._left, len(wanted) - filled)
            if os.preadv(self._file, [wanted[filled : filled + taken]], self._at) != taken:
                raise PageError("the file ends within a page")
            filled, self._at, self._left = filled + taken, self._at + taken, self._left - taken
        return self._buffer[:rows]

    def _all_pages(self) -> Iterator[tuple[int, int]]:
        for (start, size), count in zip(self._column.chunks, self._column.counts, strict=True):
            pages = [page for page in _values(self._file, start, size) if page[1]]
            if sum(length for _, length in pages) != 4 * count * self._column.dim:
                raise PageError("its pages hold other numbers of values than its footer says")
            yield from pages


def plain_column(path: Path, metadata: Any, name: str, dim: int) -> PlainColumn | None:
    """Return where the numbers of a column are; None if it is not of plain pages.

    Args:
        path: a Parquet file.
        metadata: its ``pyarrow.parquet.FileMetaData``.
        name: of a column of lists of ``dim`` float32, each whole or null.
        dim: E, at least 2.
    """
    chunks, counts = [], []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(i) for i in range(group.num_columns)]
        (column,) = (c for c in columns if c.path_in_schema.split(".")[0] == name)
        plain = column.compression == "UNCOMPRESSED" and set(column.encodings) <= {"PLAIN", "RLE"}
        if not plain or column.has_dictionary_page or column.physical_type != "FLOAT":
            return None
        there, odd = divmod(column.num_values - group.num_rows, dim - 1)  # a null list counts as one value
        if odd or not 0 <= there <= group.num_rows:
            return None
        chunks.append((column.data_page_offset, column.total_compressed_size))
        counts.append(there)
    return PlainColumn(path, dim, tuple(chunks), tuple(counts))


def _values(file: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where the numbers of each page are: first byte and bytes."""
    at, end = start, start + size
    while at < end:
        head = os.pread(file, _HEADER, at)
        try:
            fields, used = _struct(head, 0)
            second = fields[1] == _DATA_PAGE_2
            page = fields[8] if second else fields[5]
            kind = (page[4],) if second else (page[2], page[3], page[4])
            levels = page[5] + page[6] if second else 0
            body = fields[3]
        except (IndexError, KeyError, TypeError) as error:
            raise PageError("the header of a page is damaged") from error
        if fields[1] not in (_DATA_PAGE, _DATA_PAGE_2) or kind not in ((_PLAIN,), (_PLAIN, _RLE, _RLE)):
            raise PageError("a page is of another kind than its footer says")
        values = at + used + levels
        stop = at + used + body
        for _ in () if second else ("repetition", "definition"):  # levels, each behind its length
            values += 4 + int.from_bytes(os.pread(file, 4, values), "little")
        if not at < values <= stop <= end or (stop - values) % 4:
            raise PageError("the lengths in a page are wrong")
        yield values, stop - values
        at = stop


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct in Thrift's compact protocol, by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step:
            number += step
        else:
            number, at = _zigzag(data, at)
        fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true, false
        return kind == 1, at
    if kind == 3:  # byte
        return data[at], at + 1
    if kind in (4, 5, 6):  # integers
        return _zigzag(data, at)
    if kind == 8:  # bytes
        length, at = _varint(data, at)
        return data[at : at + length], at + length
    if kind == _STRUCT:
        return _struct(data, at)
    raise PageError("the header of a page is damaged")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    number, at = _varint(data, at)
    return (number >> 1) ^ -(number & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
