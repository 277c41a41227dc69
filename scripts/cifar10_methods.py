#!/usr/bin/env python
"""Train every configuration in configs/methods/ on real processes, one after the other, and write a table of results.

    scripts/cifar10_methods.py OUT.json [--set KEY=VALUE ...]

What is in OUT.json already isn't run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import asgd
from asgd.run.ledger import check_trace

CONFIGS = Path(__file__).parent.parent / "configs" / "methods"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for path in sorted(CONFIGS.glob("*.toml")):
        if path.stem in results:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = asgd.train(path, arguments.overrides, run_dir=Path(folder) / path.stem)
            summary, trace = run.summary, run.trace
        problems = check_trace(trace, summary.outstanding)
        results[path.stem] = {
            "test_accuracy": summary.test_accuracy,
            "test_loss": summary.test_loss,
            "wall_s": round(summary.wall_s, 1),
            "samples_per_s": round(summary.samples_per_s, 1),
            "updates": summary.versions,
            "gradients": summary.arrivals,
            "discarded": summary.discarded,
            "mean_delay": round(summary.delay.mean_applied, 2),
            "max_delay": summary.delay.max,
            "share_of_fast_workers": round(sum(summary.workers[w].share for w in range(4)), 3),
            "books": problems or "balanced",
        }
        print(path.stem, json.dumps(results[path.stem]), flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
