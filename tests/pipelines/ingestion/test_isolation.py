"""Decoding in a child process: a hang or a crash costs one clip and nothing else."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from pipelines.ingestion.decode import DecodeSettings, decode_clip
from pipelines.ingestion.isolation import IsolatedDecoder
from tests.helpers import fake_decoders
from tests.helpers.videofiles import numbers, write_video
from vlmodels.errors import UserError
from vlmodels.sampling import pool_indices
from vlmodels.span import Cuts, Span

SETTINGS = DecodeSettings(frames=2, size=16, pool=1)


@pytest.fixture
def files(tmp_path):
    def make(*names):
        paths = [tmp_path / name for name in names]
        for number, path in enumerate(paths):
            path.write_bytes(bytes([number]))
        return [str(path) for path in paths]

    return make


@pytest.fixture
def decoder():
    decoders = []

    def make(name="moody", time_limit=20.0):
        target = f"tests.helpers.fake_decoders:{name}"
        decoders.append(IsolatedDecoder(target, SETTINGS, SETTINGS.largest, time_limit))
        return decoders[-1]

    yield make
    for one in decoders:
        one.close()


def outcome(decoder, paths):
    """Errors, or checksums of frames (the frames themselves are valid only for a moment)."""
    return [result.error or int(result.frames.astype(int).sum()) for result in decoder(paths)]


def expected(path):
    return int(fake_decoders.paint(path, SETTINGS)[0].astype(int).sum())


def test_one_child_serves_all_clips_in_order(files, decoder):
    paths = files(*(f"{i}.mp4" for i in range(7)))
    child = decoder()
    assert outcome(child, paths) == [expected(path) for path in paths]
    pid = child.pid
    assert outcome(child, paths[::-1]) == [expected(path) for path in paths[::-1]]
    assert child.pid == pid
    os.kill(pid, 0)  # it runs
    child.close()
    assert child.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_that_ended_between_clips_is_replaced_and_no_clip_blamed(files, decoder):
    paths = files("a.mp4", "b.mp4")
    child = decoder()
    outcome(child, paths[:1])
    ended = child.pid
    os.kill(ended, signal.SIGKILL)
    os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)  # ended, but not reaped
    assert outcome(child, paths) == [expected(path) for path in paths]
    assert child.pid != ended


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash.mp4", "the decoder crashed (SIGSEGV)"),
        ("killed.mp4", "the decoder was killed (out of memory?)"),
        ("exit.mp4", "the decoder crashed (exit code 3)"),
        ("raise.mp4", "RuntimeError: surprise"),
        ("hungry.mp4", "decoding takes more than 4 GB of memory"),
    ],
)
def test_a_crash_costs_one_clip(files, decoder, name, reason):
    paths = files("a.mp4", name, "b.mp4", name.replace(".", "2."))
    assert outcome(decoder(), paths) == [expected(paths[0]), reason, expected(paths[2]), reason]


def test_a_hang_costs_one_clip_and_its_time(files, decoder):
    paths = files("a.mp4", "hang.mp4", "b.mp4")
    child = decoder(time_limit=1.0)
    outcome(child, paths[:1])  # the start of the child is not under the limit
    started = time.monotonic()
    assert outcome(child, paths) == [expected(paths[0]), "decoding takes more than 1 s", expected(paths[2])]
    assert time.monotonic() - started < 30


def test_noise_is_kept_from_the_terminal(files, decoder, capfd):
    paths = files("noise.mp4")
    assert outcome(decoder(), paths) == [expected(paths[0])]
    assert capfd.readouterr() == ("", "")


def test_leaving_early_does_not_mix_up_answers(files, decoder):
    paths = files("a.mp4", "b.mp4", "c.mp4")
    child = decoder()
    results = child(paths)
    next(results)
    results.close()
    assert outcome(child, paths[2:]) == [expected(paths[2])]


def test_a_decoder_that_cannot_start_is_one_clear_error(files, decoder):
    with pytest.raises(UserError, match=r"does not start: .*no_such_function"):
        outcome(decoder("no_such_function"), files("a.mp4"))


def test_a_real_clip_through_the_child(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=40)
    settings = DecodeSettings(frames=4, size=48, pool=2)
    isolated = IsolatedDecoder("pipelines.ingestion.decode:decode_clip", settings, settings.largest, 60)
    (result,) = isolated([str(path)])
    assert result.frames.shape == (12, 56, 77, 3)  # 56 high; 64:48 on a grid of 7
    assert numbers(result.frames) == pool_indices(40, 4, settings.offsets).tolist()
    frames, info = decode_clip(str(path), settings)
    assert np.array_equal(result.frames, frames)
    assert result.info == info
    isolated.close()


def test_a_file_whose_decoder_ends_costs_its_parts_once(decoder, tmp_path):
    video = write_video(tmp_path / "a.mp4")
    isolated = decoder("paint", time_limit=1e-6)
    cuts = [Cuts((Span(0, 1), Span(1), None)), Cuts((Span(0, 1),))]
    found = list(isolated([str(video), str(video)], cuts))
    assert [one.error for one in found] == ["decoding takes more than 1e-06 s"] * 4


def test_parts_come_in_order_among_whole_files(decoder, tmp_path):
    video = str(write_video(tmp_path / "a.mp4", frames=50))
    isolated = decoder("paint")
    cuts = [None, Cuts((Span(0, 1), Span(1.5, 2), Span(5, 6))), Cuts((None,)), None]
    found = [one.info.n_frames if one.info else one.error[:20] for one in isolated([video] * 4, cuts)]
    assert found == [40, 25, 12, "times after the vide", 50, 40]
