"""The manifest (one row for every input video), and the published files that name videos and classes.

Lists hold ``path label`` lines; label files are CSV with the header ``id,name``. Both exist with CRLF, without
a final newline, gzipped, and with names that hold spaces, commas, quotes, ``#`` and brackets.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from vlmodels.errors import UserError

FACTS = pa.schema(
    [
        ("clip_id", pa.string()),  # sha256(uri)[:16]
        ("bytes", pa.int64()),  # size and time of change of the file that was read: is it still the same?
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),  # of the file's bytes
        ("width", pa.int32()),  # as displayed
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("n_frames", pa.int64()),
        ("decoder", pa.string()),
        ("status", pa.string()),  # "ok" or "quarantined"
        ("error", pa.string()),  # "" if ok
        ("shard", pa.string()),  # file in shards/ and row in it; "" and null if quarantined
        ("row", pa.int32()),
    ]
)
"""What decoding finds out about a clip."""

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),  # as the list or folder names it, below the root
        ("path", pa.string()),  # where the file is, below the root; "" if it is missing
        ("label", pa.string()),  # class name; "" if unlabelled
        ("group", pa.string()),  # clips of one source video share it
        ("split", pa.string()),  # list names or train/val/test folder, joined by "|"; "" if none
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        *(field for field in FACTS if field.name != "clip_id"),
    ]
)
"""The truth about ``manifest.parquet``."""

_GROUPED = re.compile(r"^(.+_g\d+)_c\d+$|^(.+)_[fhlu]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+$")


@dataclass(frozen=True, slots=True)
class ListLine:
    """One line of a list: the video's path as written, its class index, and where it stands (``file:line``)."""

    path: str
    label: int
    where: str


def clip_id(uri: str) -> str:
    """Return the name of a clip: the first 16 hexadecimal digits of its uri's SHA-256."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def group_of(uri: str) -> str:
    """Return the source video of a clip, where its name tells, else its name.

    ``v_X_g03`` of ``v_X_g03_c01`` (UCF-101), ``Film_pour`` of ``Film_pour_u_cm_np1_fr_med_0`` (HMDB-51).
    """
    stem = Path(uri).stem
    match = _GROUPED.match(stem)
    return (match.group(1) or match.group(2)) if match else stem


def read_labels(path: str | Path) -> list[str]:
    """Return the class names of a label CSV, in label order.

    Raises:
        UserError: no such file, no header ``id,name``, ids that are not 0, 1, 2, ..., a name twice.
    """
    lines = csv.reader(_text(Path(path)).splitlines())
    header = [cell.strip().lower() for cell in next(lines, [])]
    if "id" not in header or "name" not in header:
        raise UserError(f"{path}:1: a label file starts with the header 'id,name', not '{','.join(header)}'")
    id_column, name_column = header.index("id"), header.index("name")
    names: list[str] = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}:{lines.line_num}"
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} cells where the header has {len(header)}; quote names that hold commas"
            )
        number, name = cells[id_column].strip(), cells[name_column].strip()
        if number != str(len(names)):
            raise UserError(f"{where}: id '{number}' where {len(names)} should follow; ids count 0, 1, 2, ...")
        if not name or name in names:
            raise UserError(f"{where}: class name '{name}' is {'there twice' if name else 'empty'}")
        names.append(name)
    if not names:
        raise UserError(f"{path}: no classes in it")
    return names


def read_list(path: str | Path, n_classes: int | None = None) -> list[ListLine]:
    """Return the lines of a video list (``path label``, the path may hold spaces).

    Raises:
        UserError: no such file, a line without a label, a label outside ``0 .. n_classes - 1``, no lines.
    """
    found = []
    for number, line in enumerate(_text(Path(path)).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        parts = line.strip().rsplit(None, 1)
        if len(parts) != 2 or not parts[1].isdecimal():
            raise UserError(f"{where}: expected 'path label' with a number as label, found '{line.strip()}'")
        label = int(parts[1])
        if n_classes is not None and label >= n_classes:
            raise UserError(
                f"{where}: label {label} is out of range: the label file has {n_classes} classes "
                f"(0 to {n_classes - 1}); is it the label file of this list?"
            )
        found.append(ListLine(parts[0], label, where))
    if not found:
        raise UserError(f"{path}: no videos in this list")
    return found


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
