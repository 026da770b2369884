"""Zero-shot: score data sets that did not train the model, each list among its own classes; mean over the lists.

Examples:
  python pipelines/zero_shot.py --method zeroshot --data data/mine --backbone ViT-B-16-quickgelu --pretrained openai
  python pipelines/zero_shot.py --method msta --data data/k400 --test ucf101=data/ucf --test hmdb51=data/hmdb ...
  python pipelines/zero_shot.py --method msta --start RUN --set optim.epochs=0 --test ucf101=data/ucf ...
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.run_script import run_script
from pipelines.runs.protocol_script import run_protocol


def main(argv: Sequence[str] | None = None) -> int:
    """Train on --data and score every --test; without --test, score --data itself."""
    return run_protocol(__doc__, "zero_shot", argv)


if __name__ == "__main__":
    run_script(main)
