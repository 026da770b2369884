"""Decode functions that stand in for the real one inside the decoding child: well behaved, slow, hanging, crashing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from vlmodels.video import VideoError, VideoInfo


def paint(path, settings):
    """Return frames that depend on the file's bytes alone; a name with 'wide' gives another shape."""
    content = Path(path).read_bytes()
    if content == b"bad":
        raise VideoError(path, "damaged: it says so itself")
    width = 24 if "wide" in path else 16
    random = np.random.default_rng(list(content))
    frames = random.integers(0, 255, (settings.stored_frames, 16, width, 3), dtype=np.uint8)
    return frames, VideoInfo(width, 16, 25.0, 40, "pyav")


def fitting(path, settings):
    """Return frames as small as may be stored, which depend on the file's bytes alone."""
    size = settings.size
    frames = np.random.default_rng(list(Path(path).read_bytes())).integers(
        0, 255, (settings.stored_frames, size, size, 3)
    )
    return frames.astype(np.uint8), VideoInfo(size, size, 25.0, 40, "pyav")


def slowly(path, settings):
    """Take a moment over each clip."""
    time.sleep(0.1)
    return paint(path, settings)


def moody(path, settings):
    """Do what the file's name says."""
    name = Path(path).name
    if "hang" in name:
        time.sleep(3600)
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "killed" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "exit" in name:
        os._exit(3)
    if "raise" in name:
        raise RuntimeError("surprise")
    if "hungry" in name:
        np.ones(6 << 30, np.uint8)
    if "noise" in name:
        print("to stdout")
        os.write(2, b"native noise\n")
    return paint(path, settings)
