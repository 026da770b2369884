"""Text-video retrieval: tune on pairs of video and caption, rank videos for captions and captions for videos.

Example:
  python pipelines/retrieval.py --data DIR --backbone ViT-B-16-quickgelu --pretrained openai --method viltclip
                                --workers 2 --gpu
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.run_script import run_script
from pipelines.runs.protocol_script import run_protocol


def main(argv: Sequence[str] | None = None) -> int:
    """Train on pairs; report R@1, R@5, R@10, median and mean rank in both directions."""
    return run_protocol(__doc__, "retrieval", argv)


if __name__ == "__main__":
    run_script(main)
