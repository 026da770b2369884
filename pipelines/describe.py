"""Describe the classes of a label list in words: by a language model, or from published files.

Descriptions are kept in OUT/descriptions.sqlite; further classes, kinds and sources may be added later, and stored
descriptions are not asked for again. The key for a server is read from the environment variable OPENAI_API_KEY.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipelines.descriptions.commands import ask, export, import_published, report
from pipelines.descriptions.flags import parse
from pipelines.run_script import run_script

if TYPE_CHECKING:
    from llm_descriptions.store import DescriptionStore, Key


def main(arguments: list[str] | None = None) -> int:
    """Fill the store; return 1 if classes failed or were not asked."""
    request = parse(__doc__, arguments)
    from llm_descriptions.labels import read_labels
    from llm_descriptions.store import FILE_NAME, DescriptionStore

    labels = read_labels(request.labels)
    store = DescriptionStore(request.out / FILE_NAME)
    keys: list[Key] = []
    left = 0
    if request.from_published:
        keys = import_published(store, request)
    elif request.model:
        keys, left = ask(store, labels, request)
        if request.dry_run:
            return 0
    print(f"store: {store.path}")
    print_examples(store, keys)
    if request.export and left:
        print("not exported: descriptions are missing", file=sys.stderr)
    elif request.export:
        export(store, labels, keys, request)
    if request.report:
        report(store, labels, request)
    return 1 if left else 0


def print_examples(store: DescriptionStore, keys: list[Key]) -> None:
    """Print the first stored description of each kind."""
    shown = set()
    for key in keys:
        texts = store.get(key) if key.kind not in shown else None
        if texts:
            shown.add(key.kind)
            print(f"  {key.kind}, '{key.label}': {texts[0]}")


if __name__ == "__main__":
    run_script(main)
