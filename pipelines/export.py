"""Export a trained model for use without this package: ONNX, torch.export, its classes, and an example that runs.

Examples:
  python pipelines/export.py --model models:/msta-b2n@champion --out exported
  python exported/example.py clip.mp4                                       # needs numpy, onnxruntime and av alone

  python pipelines/export.py --model runs/NAME --labels labels.csv --out exported        # with other classes
  python pipelines/export.py --model runs/NAME --labels new.csv --format classes --out new  # the classes alone
  python pipelines/export.py --model runs/LORA --merged --out exported           # and as weights of open_clip's CLIP

The folder's export.json says what goes in and what comes out, and how far the files are from PyTorch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.run_script import run_script


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, metavar="URI|DIR", help="models:/NAME@ALIAS, or a run's folder")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write: a new or empty one, or an export's")
    add("--weights", metavar="FILE", help="weight file of the backbone, where the model's own is elsewhere")
    add("--labels", metavar='"A,B,C"|FILE', help="class names to choose from (default: the trained ones)")
    add(
        "--format",
        choices=("both", "onnx", "torch", "classes"),
        default="both",
        help="video.onnx, video.pt2 (torch.export), both (default), or classes.npz alone, for a graph that you have",
    )
    add("--merged", action="store_true", help="write merged.safetensors too: a plain CLIP (lora, finetune, zeroshot)")
    add("--mlflow", metavar="URI", help="tracking URI (default: $MLFLOW_TRACKING_URI, else runs/)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export a model, and check the files against PyTorch."""
    args = parser().parse_args(argv)

    from pipelines.planning.training_flags import tracking_uri
    from pipelines.storage.cache import local_run  # torch: late
    from pipelines.videos.class_names import read_names
    from vlmodels.model_folder import model_folder

    labels = tuple(read_names(args.labels)) if args.labels is not None else None
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(args.mlflow, "runs")
    folder = model_folder(local_run(args.model))

    from pipelines.exporting.package import ExportRequest, export

    request = ExportRequest(args.model, folder, args.out, args.format, labels, args.weights, args.merged)
    out = export(request)
    print(f"export     {out}")
    if request.onnx:
        print(f"try        python {out / 'example.py'} VIDEO")
    return 0


if __name__ == "__main__":
    run_script(main)
