"""Fully supervised: tune on all training videos, score the test list.

Example:
  python pipelines/supervised.py --data DIR --backbone ViT-B-16-quickgelu --pretrained openai --method m2clip
                                 --views m2clip --workers 8 --gpu --register mine
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.run_script import run_script
from pipelines.runs.protocol_script import run_protocol


def main(argv: Sequence[str] | None = None) -> int:
    """Train on all training videos, score the test list."""
    return run_protocol(__doc__, "supervised", argv)


if __name__ == "__main__":
    run_script(main)
