"""The same run in one process and without Ray, to compare with: python -m tests.cluster.alone, flags as b2n.py."""

from __future__ import annotations

import sys

from pipelines.planning.plan import plan_run
from pipelines.planning.training_flags import config_from, training_parser
from pipelines.runs.run import Watch, run_training

if __name__ == "__main__":
    config = config_from(training_parser("", "b2n").parse_args(), protocol="b2n")
    print(run_training(plan_run(config), watch=Watch("alone", lambda _: None)).run_dir)
    sys.exit()
