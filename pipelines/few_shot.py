"""Few-shot: tune on K videos of every class, score all classes on the first test list.

Example:
  python pipelines/few_shot.py --data DIR --backbone ViT-B-16-quickgelu --pretrained openai --method viltclip
                               --set protocol.shots=16 --workers 2
  with --start RUN to begin with a model that was tuned on other data, as the papers do with Kinetics-400
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.run_script import run_script
from pipelines.runs.protocol_script import run_protocol


def main(argv: Sequence[str] | None = None) -> int:
    """Train on K shots, score the whole test list."""
    return run_protocol(__doc__, "few_shot", argv)


if __name__ == "__main__":
    run_script(main)
