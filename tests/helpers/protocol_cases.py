"""Ingested data, settings and lists of the published form, for tests of protocols."""

from __future__ import annotations

from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.split import Source
from tests.helpers.fakes import folder_clips

NAMES = ("clap", "run", "sit", "walk")


def source(clips=None, name="mine", folder="/nowhere"):
    return Source(name, str(folder), tuple(clips if clips is not None else folder_clips()), NAMES)


def label_file(folder, file, names):
    (folder / file).write_text("id,name\r\n" + "".join(f"{i},{n}\r\n" for i, n in enumerate(names)), newline="")


def lines(names, part):
    listed = {c.label: [] for c in folder_clips()}
    for c in folder_clips():
        listed[c.label].append(c.uri)
    return "".join(f"{uri} {i}\n" for i, n in enumerate(names) for uri in listed[n][part])


def config(name="b2n", lists=None, **settings):
    return ProtocolConfig(name=name, lists=None if lists is None else str(lists), **settings)


def counts(split):
    return len(split.train), [(t.name, len(t.classes), t.n_listed) for t in split.tests]
