#!/usr/bin/env python
"""Start a cluster from one configuration: all of it on this machine, or one role on each of several machines.

Without --role: server, workers and evaluator here, as `asgd train` does. With --role: that role only. Every machine
needs the same configuration file and the same asgd; the server prints the commands for the others. Options that this
script does not know are passed on to `asgd train`, `asgd server`, `asgd worker` or `asgd evaluator`.

Without keys the server listens only where this machine alone can reach it. Make keys with `asgd keys DIR`, give the
directory with --keys or security.keys, and copy server.pub and worker.key to the other machines.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import pairwise
from pathlib import Path

from asgd.cli import exit_with, main
from asgd.config import load_config

EXAMPLES = """examples:
  scripts/launch_cluster.py configs/shapes.toml
  scripts/launch_cluster.py configs/shapes.toml --keys keys --role server --address tcp://10.0.0.1:5555    first machine
  scripts/launch_cluster.py configs/shapes.toml --keys keys --role worker --address tcp://10.0.0.1:5555    the others
"""


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what begins like an option of this script may be one of asgd's
    )
    parser.add_argument("config", help="the configuration, a TOML file")
    parser.add_argument("--role", choices=["server", "worker", "evaluator"], help="only this role")
    parser.add_argument("--address", help="the server's address, tcp://HOST:PORT [cluster.address]")
    parser.add_argument("--keys", help="this machine's keys, made by `asgd keys` [security.keys]")
    parser.add_argument("--index", type=int, default=-1, help="a worker's number; -1 takes a free one [%(default)s]")
    given, rest = parser.parse_known_args()
    return given, rest


def run() -> None:
    given, rest = parse()
    overrides = [value for option, value in pairwise(rest) if option == "--set"]
    config = load_config(given.config, overrides)
    address = given.address or config.cluster.address
    keys = ["--keys", given.keys] if given.keys else []
    if given.role is None:
        arguments = ["train", given.config]
        keys = ["--set", f"security.keys={Path(given.keys).absolute()}"] if given.keys else []
    elif given.role == "server":
        sets = [word for value in overrides for word in ("--set", value)]
        other = shlex.join(["scripts/launch_cluster.py", given.config, *keys, *sets, "--address", address, "--role"])
        print(f"the workers, {config.cluster.num_workers} times, on any machine:\n  {other} worker", flush=True)
        if config.evaluation.evaluate != "never":
            print(f"the evaluator, once, on any machine:\n  {other} evaluator", flush=True)
        arguments = ["server", given.config, "--bind", address]
    elif given.role == "worker":
        arguments = ["worker", given.config, "--connect", address, "--index", str(given.index)]
    else:
        arguments = ["evaluator", given.config, "--connect", address]
    sys.argv[1:] = [*arguments, *keys, *rest]
    main()


if __name__ == "__main__":
    exit_with(run)
