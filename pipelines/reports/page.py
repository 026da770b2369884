"""HTML pages from templates, and text that is safe in links and Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

TEMPLATES = Path(__file__).parent / "templates"


class Picture(NamedTuple):
    """A picture of a page: its caption and its file's name."""

    caption: str
    file: str


def write_page(path: Path, template: Path, *, title: str, width: int = 62, **values: Any) -> Path:
    """Render a Jinja2 template with everything escaped, and write the page whole.

    Args:
        path: the page.
        template: a file that extends ``frame.html.j2``; it may include what lies in its folder and in ``TEMPLATES``.
        title: of the page.
        width: of the text, in rem.
        values: the template's own.
    """
    from jinja2 import Environment, FileSystemLoader

    from pipelines.storage.files import write_whole

    loader = FileSystemLoader([template.parent, TEMPLATES])
    page = Environment(autoescape=True, loader=loader).get_template(template.name)
    text = page.render(title=title, width=width, **values)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def file_name(text: str) -> str:
    """Return text as part of a file's name, safe in a link: characters but letters, digits, - and _ become _."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def markdown(text: object) -> str:
    """Return text for Markdown on one line; markup and HTML in it are escaped."""
    plain = " ".join(str(text).split())
    for mark in "\\`*_{}[]<>|#~$":
        plain = plain.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return plain
