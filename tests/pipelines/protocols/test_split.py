"""What the digest of a split stands for."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config.protocols import PROTOCOLS
from pipelines.protocols.make_split import make_split
from pipelines.protocols.split import Scoring, Source, clips_of
from tests.helpers.fakes import clip, folder_clips
from tests.helpers.protocol_cases import NAMES, config, source

# --------------------------------------------------------------------------------------------------------- digest


SCORING = Scoring(frames=8, clips=1, crops=1)
MINE = source()
CHANGES = {
    "a file's content": {"data": source([dataclasses.replace(c, sha256=f"{c.uri}!") for c in folder_clips()])},
    "broken clips": {"data": source([dataclasses.replace(c, ok="_0" not in c.uri) for c in folder_clips()])},
    "frames": {"scoring": dataclasses.replace(SCORING, frames=16)},
    "clips": {"scoring": dataclasses.replace(SCORING, clips=4)},
    "crops": {"scoring": dataclasses.replace(SCORING, crops=3)},
    "stored size": {"scoring": dataclasses.replace(SCORING, short_side=256)},
    "sampling": {"scoring": dataclasses.replace(SCORING, sampling="dense", stride=16)},
    "a class's name": {
        "data": dataclasses.replace(
            source([dataclasses.replace(c, label=c.label.replace("run", "jog")) for c in folder_clips()]),
            classes=("clap", "jog", "sit", "walk"),
        )
    },
}


@pytest.fixture(params=PROTOCOLS)
def digest(request, tmp_path):
    """Digest of a protocol on own data, with changes to what it is given."""
    (tmp_path / "c.csv").write_text("video,caption\n" + "".join(f"{c.uri},{c.label}\n" for c in folder_clips()))
    common = {"name": request.param, "shots": 3, "fewer_shots": True, "captions": str(tmp_path / "c.csv")}

    def made(data=MINE, seed=1, scoring=SCORING, **settings):
        return make_split(config(**common | settings), data, seed, scoring=scoring).digest

    made.protocol = request.param
    return made


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_digest_changes_if_what_is_scored_changes(digest, change, request):
    nameless = digest.protocol == "retrieval" and "name" in request.node.callspec.id  # it has captions instead
    assert (digest() == digest(**change)) == nameless


def test_the_digest_changes_with_what_is_drawn(digest):
    if digest.protocol in ("few_shot", "b2n"):
        assert digest() != digest(seed=2)
        assert digest() != digest(shots=2)
    if digest.protocol != "zero_shot":
        assert digest() != digest(split_seed=2)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=5), folder=st.text(min_size=1, max_size=5), extra=st.integers(0, 3))
def test_the_digest_stays_if_nothing_that_is_scored_changes(digest, name, folder, extra):
    """Where the data lies, what it is called, and clips without a label or a caption are nothing to it."""
    unlabelled = [clip(n, "") for n in range(extra)]
    data = Source(name, folder, tuple(folder_clips() + unlabelled), NAMES)
    assert digest() == digest(data=data)
    assert digest() == digest(allow_leak=True, hmdb_names="corrected")


# --------------------------------------------------------------------------------------------- parts of videos


def manifest(uris):
    count = len(uris)
    same = {name: [""] * count for name in ("label", "group", "split", "error")}
    return pa.table({"clip_id": uris, "uri": uris, **same, "status": ["ok"] * count, "sha256": ["f"] * count})


def test_the_content_of_a_part_is_its_file_and_its_times():
    parts = clips_of(manifest(["a.mp4 [0.0-2.0 s]", "a.mp4 [2.0-4.0 s]", "a.mp4", "b.mp4 [0.0-2.0 s]"]))
    first, second, whole, copy = (clip.sha256 for clip in parts)
    assert len({first, second, whole}) == 3  # no copies of each other
    assert first == copy
    assert whole == "f"
