"""A small toy world: python -m tests.cluster.world FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.toyworld.world import make_world

if __name__ == "__main__":  # its processes import this module again
    make_world(Path(sys.argv[1]), "toy-ucf", train_per_class=16, test_per_class=2)
