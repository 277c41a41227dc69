"""How many states of the protocol are visited per method: `PYTHONPATH=tests python -m model [fast | slow | large]`."""

from __future__ import annotations

import argparse
import json
import time

from model.plans import CASES, PLANS, settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    parser.add_argument("size", nargs="?", default="slow", choices=PLANS, help="how far to explore (default: slow)")
    parser.add_argument("--only", action="append", help="a method; may be given several times (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    chosen = parser.parse_args()
    rows = []
    for method, options in CASES:
        if chosen.only and method not in chosen.only:
            continue
        begun_s = time.process_time()
        results = [setting.run() for setting in settings(chosen.size, method, options)]
        row = {
            "method": method,
            "options": {name: str(value) for name, value in options.items()},
            "states": sum(result.states for result in results),
            "steps": sum(result.steps for result in results),
            "depth": max(result.depth for result in results),
            "cpu_s": round(time.process_time() - begun_s, 2),
        }
        rows.append(row)
        if not chosen.json:
            title = " ".join([method, *(f"{name}={value}" for name, value in row["options"].items())])
            print(f"{title:40}{row['states']:>11,} states{row['steps']:>12,} steps{row['cpu_s']:>8.1f} s", flush=True)
    states, steps = sum(row["states"] for row in rows), sum(row["steps"] for row in rows)
    if chosen.json:
        print(json.dumps({"size": chosen.size, "states": states, "steps": steps, "methods": rows}))
    else:
        print(f"{'all':40}{states:>11,} states{steps:>12,} steps{sum(row['cpu_s'] for row in rows):>8.1f} s")


if __name__ == "__main__":
    main()
