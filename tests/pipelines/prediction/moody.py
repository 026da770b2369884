"""A decode function that does what the file's name says, inside the decoding child."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from vlmodels.video import VideoError, VideoInfo


def decode(path, reader):
    """Return grey frames, or do not."""
    if "hang" in path:
        time.sleep(3600)
    if "crash" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "killed" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    if "raise" in path:
        raise RuntimeError("surprise")
    if not Path(path).exists():
        raise VideoError(path, "no such file")
    return np.full((reader.clips, reader.frames, 64, 64, 3), 99, np.uint8), VideoInfo(64, 64, 25.0, 40, "fake")
