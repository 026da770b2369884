"""The frame of every HTML page, and how figures and tables are put into it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: {{ width }}rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; } .wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; }
th { text-align: left; vertical-align: bottom; } td { vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.k { font-family: monospace; font-size: 13px; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; display: inline-block; vertical-align: top; max-width: min(100%, 43rem); }
img { max-width: 100%; }
figcaption, .small { color: #666; font-size: 13px; } .tiny { color: #666; font-size: 11.5px; display: block; }
.few { color: #b3261e; } details { margin: .5rem 0; } summary { cursor: pointer; } a { color: #2a5d9c; }
th.set { border-left: 2px solid #eee; } td.set { border-left: 2px solid #eee; }
</style></head><body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body></html>
"""

FIGURES = """{% macro figures(pictures) %}{% for p in pictures %}<figure><img src="{{ p.file }}" alt="{{ p.caption }}"
 loading="lazy"><figcaption>{{ p.caption }}</figcaption></figure>
{% endfor %}{% endmacro %}"""


class Picture(NamedTuple):
    """A picture beside a page: its caption and its file's name."""

    caption: str
    file: str


def write_page(path: Path, body: str, *, title: str, width: int = 62, **values: Any) -> Path:
    """Render ``body``, the inside of a page as Jinja2 template, with everything escaped, and write it whole."""
    from jinja2 import DictLoader, Environment

    from pipelines.storage.files import write_whole

    templates = {"frame": _FRAME, "figures": FIGURES, "page": '{% extends "frame" %}' + _with_block(body)}
    page = Environment(autoescape=True, loader=DictLoader(templates)).get_template("page")
    text = page.render(title=title, width=width, **values)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def _with_block(body: str) -> str:
    return '{% from "figures" import figures %}{% block body %}' + body + "{% endblock %}"


def file_name(text: str) -> str:
    """Text as part of a file's name, safe in a link: other characters than letters, digits, - and _ become _."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def markdown(text: object) -> str:
    """Text for Markdown: what would be markup or HTML stands for itself, on one line."""
    plain = " ".join(str(text).split())
    for mark in "\\`*_{}[]<>|#~$":
        plain = plain.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return plain
