"""Small lists and label files on disk."""

from __future__ import annotations

LABEL_FILE = 'id,name\r\n0,Typing\r\n1,"Laying something on the table, on its side"\r\n2,plié\r\n'


def put(path, content="x"):
    """Write a file, with its folders; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_labels(path, names, end="\n"):
    """Write a label CSV; return its path."""
    return put(path, end.join(["id,name", *(f'{i},"{name}"' for i, name in enumerate(names))]) + end)
