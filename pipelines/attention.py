"""Where a trained model looks: attention of the last block over frames, next to zero-shot CLIP's.

Example:
  python pipelines/attention.py --run runs/NAME --data data/mine --clips 4 --out attention
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.reports.attention import choose, draw, targets_of
from pipelines.run_script import run_script


def main(argv: Sequence[str] | None = None) -> int:
    """Draw test clips of a run with the attention of its model and of the backbone alone (OmniCLIP figure 4)."""
    parser = argparse.ArgumentParser(
        prog="attention.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", required=True, type=Path, metavar="DIR", help="folder of a finished run")
    add("--weights", metavar="FILE", help="weight file of the backbone, where the run's own is elsewhere")
    add("--data", required=True, metavar="DIR|URI", help="ingested data that it was tested on")
    add("--clips", type=int, default=4, metavar="N", help="clips to draw, spread over the classes (default: 4)")
    add("--set", metavar="NAME", help="test set to take them from, such as novel (default: the first)")
    add("--out", type=Path, default=Path("attention"), metavar="DIR", help="where to write (default: attention)")
    args = parser.parse_args(argv)

    from pipelines.shards.clip_store import ClipStore
    from vlmodels.errors import UserError
    from vlmodels.paths import is_there

    if args.clips < 1:
        raise UserError(f"--clips {args.clips}: draw at least 1")
    if is_there(args.out) and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file; name a folder")
    tested = targets_of(args.run)
    store = ClipStore(args.data)
    name, classes, chosen = choose(args.run, tested, store, args.set, args.clips)

    from vlmodels import methods
    from vlmodels.checkpoint import load_adapter
    from vlmodels.clip import create

    ours = load_adapter(args.run, weights=args.weights)
    spec = ours.method.backbone.spec
    if store.segments != spec.frames:
        raise UserError(f"{args.data} has {store.segments} frames a clip, the model takes {spec.frames}")
    bare = create(spec.name, weights=spec.weights, num_frames=spec.frames, statistics=spec.statistics)
    plain = methods.get("zeroshot")(bare)
    models = {"zero-shot": plain, ours.method.name: ours.method}
    page = draw(models, store, chosen, classes, args.out, title=f"{args.run.resolve().name}, {name}")
    print(f"attention  {page}")
    return 0


if __name__ == "__main__":
    run_script(main)
