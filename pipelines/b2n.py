"""Base-to-novel generalisation: tune on few shots of the base classes, score base and novel classes.

Example:
  python pipelines/b2n.py --data DIR --backbone ViT-B-16-quickgelu --pretrained openai --method msta
                          --descriptions FILE --seeds 1,2,3 --views msta --workers 2 --register msta-b2n
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.run_script import run_script
from pipelines.runs.protocol_script import run_protocol


def main(argv: Sequence[str] | None = None) -> int:
    """Run once for each training subset; the HM is that of the averaged accuracies."""
    return run_protocol(__doc__, "b2n", argv)


if __name__ == "__main__":
    run_script(main)
