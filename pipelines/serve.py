"""Serve a trained model over HTTP: POST /v1/predict, and a page to drop videos on. Needs pip install -e '.[serve]'.

Examples:
  python pipelines/serve.py --model models:/msta-b2n@champion              # http://127.0.0.1:8000, this machine only
  curl -F video=@clip.mp4 -F labels="clapping,walking" http://127.0.0.1:8000/v1/predict
  curl -F video=@match.mp4 -F window=4 -F stride=2 http://127.0.0.1:8000/v1/predict     # with a timeline

  VIDADAPT_TOKEN=... python pipelines/serve.py --model models:/msta-b2n@champion --host 0.0.0.0     # asks for the token
  python pipelines/serve.py --model models:/msta-b2n@champion --allow-uris s3://bucket/videos/

Where --model names an alias, the version that it is moved to takes over while requests go on. /docs describes the API,
/metrics counts for Prometheus, /ready says whether requests are taken. A local Ray is started, or RAY_ADDRESS joined:
  ray submit -p 8000 cluster.yaml pipelines/serve.py -- --model models:/msta-b2n@champion     # http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipelines.run_script import run_script

MEGABYTE = 1 << 20


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="serve.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, metavar="URI|DIR", help="models:/NAME@ALIAS, models:/NAME/3, or a run's folder")
    add("--weights", metavar="FILE", help="weight file of the backbone, where the model's own is elsewhere")
    add("--mlflow", metavar="URI", help="tracking URI (default: $MLFLOW_TRACKING_URI, else runs/)")
    add("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: a GPU if there is one)")
    add("--embeddings", metavar="DIR", help="embeddings by predict.py that POST /v1/search searches")
    network = parser.add_argument_group("network").add_argument
    network("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: this machine only)")
    network("--port", type=int, default=8000, metavar="P", help="port; 0 for any free one (default: 8000)")
    network(
        "--token-file",
        metavar="FILE",
        help="file with the token to ask for (default: $VIDADAPT_TOKEN; without either, one is made if --host is open)",
    )
    network(
        "--allow-uris",
        action="append",
        default=[],
        metavar="PREFIX",
        help="requests may name videos below it: a folder or a store, may be repeated (default: none)",
    )
    network("--poll", type=float, default=10, metavar="S", help="seconds between two looks at the alias (default: 10)")
    limits = parser.add_argument_group("limits of a request").add_argument
    limits("--max-megabytes", type=float, default=256, metavar="MB", help="bytes of its videos (default: 256)")
    limits("--max-seconds", type=float, default=600, metavar="S", help="length of a video (default: 600)")
    limits("--max-pixels", type=int, default=4096 * 2304, metavar="N", help="pixels of its pictures (default: 4K)")
    limits("--queue", type=int, default=32, metavar="N", help="requests at a time; more get 503 (default: 32)")
    limits("--decode-seconds", type=float, default=60, metavar="S", help="time to decode a video (default: 60)")
    limits(
        "--decoders",
        type=int,
        default=0,
        metavar="N",
        help="decoding processes on one machine (default: one a CPU, at most 4)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    command_line = parser()
    args = command_line.parse_args(argv)
    if not args.poll > 0:
        command_line.error(f"--poll {args.poll:g}: choose more than 0")
    if not 0 < args.max_megabytes < 1e6:
        command_line.error(f"--max-megabytes {args.max_megabytes:g}: choose more than 0")
    if args.decoders < 0:
        command_line.error(f"--decoders {args.decoders}: choose 0 or more")

    from pipelines.planning.training_flags import tracking_uri
    from pipelines.serving.limits import Limits
    from pipelines.serving.server import ServerRequest, run_server

    limits = Limits(
        max_bytes=int(args.max_megabytes * MEGABYTE),
        max_seconds=args.max_seconds,
        max_pixels=args.max_pixels,
        queue=args.queue,
        decode_s=args.decode_seconds,
    )
    run_server(
        ServerRequest(
            model=args.model,
            registry=tracking_uri(args.mlflow, "runs"),
            weights=args.weights,
            device=args.device,
            host=args.host,
            port=args.port,
            token_file=args.token_file,
            allow_uris=args.allow_uris,
            embeddings=args.embeddings,
            decoders=args.decoders,
            limits=limits,
            poll_s=args.poll,
        )
    )
    return 0


if __name__ == "__main__":
    run_script(main)
