"""Settings of the stored frames, their record and digest, and decoding one file to them."""

from __future__ import annotations

import sys

import av
import numpy as np
import pytest

from pipelines.ingestion.decode import DecodeSettings, decode_clip
from tests.helpers.videofiles import numbers, write_video
from vlmodels.errors import UserError
from vlmodels.sampling import view_indices


def test_settings_are_checked_and_digested():
    assert DecodeSettings().to_json()["short_side"] == 256
    assert DecodeSettings().offsets == (0.125, 0.375, 0.5, 0.625, 0.875)
    assert DecodeSettings().largest >= 40 * 256 * 640 * 3
    assert len({DecodeSettings(frames=4).digest, DecodeSettings(size=48).digest, DecodeSettings(pool=1).digest}) == 3
    for bad in ({"frames": 0}, {"size": 4}, {"pool": 0}):
        with pytest.raises(UserError, match=f"--{next(iter(bad))}"):
            DecodeSettings(**bad)
    with pytest.raises(UserError, match="--stride 0: choose 1 to 256"):
        DecodeSettings(sampling="dense", stride=0)
    with pytest.raises(UserError, match=r"--sampling dence: choose segments or dense \(did you mean 'dense'\?\)"):
        DecodeSettings(sampling="dence")


def test_what_was_decoded_before_there_was_dense_sampling_stays_valid():
    assert DecodeSettings().digest == "896ef2b9abb286382aa760b9ad9f523acbeb91d599a59a2418da77aa0ee0129e"
    assert DecodeSettings(4, 48, 1).digest == "c3a1bc9adf0774c78775f94815777caf0d2ab106985e2b705f4deb20d6b71760"
    assert DecodeSettings(stride=8).to_json() == DecodeSettings().to_json()


def test_dense_settings_say_so():
    dense = DecodeSettings(pool=3, sampling="dense")
    said = dense.to_json()
    assert (said["sampling"], said["stride"], said["starts"]) == ("dense", 16, [0.5, 0, 0.5, 1])
    assert "offsets" not in said  # what reads segments only must not take these for some
    assert dense.stored_frames == 32
    others = [DecodeSettings(pool=3), DecodeSettings(pool=3, sampling="dense", stride=8)]
    assert len({dense.digest, *(other.digest for other in others)}) == 3


@pytest.mark.parametrize("settings", [DecodeSettings(4, 48, 3), DecodeSettings(4, 48, 3, "dense")])
@pytest.mark.parametrize("length", [150, 30, 1])
def test_all_views_are_stored_in_one_pass_over_the_video(tmp_path, monkeypatch, settings, length):
    path, opened, av_open = write_video(tmp_path / "a.mp4", frames=length), [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **how: opened.append(args) or av_open(*args, **how))
    monkeypatch.setitem(sys.modules, "decord", None)
    frames, info = decode_clip(str(path), settings)
    assert len(opened) == 2  # for the header and for one pass
    assert info.decoder == "pyav"
    assert len(frames) == settings.stored_frames
    assert numbers(frames) == settings.indices(info.n_frames).tolist()
    stored = np.array(numbers(frames)).reshape(4, -1).T.tolist()
    for clips in (1, 3):
        for view in view_indices(length, 4, clips, settings.sampling, settings.stride).tolist():
            assert view in stored
