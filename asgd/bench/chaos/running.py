"""Runs a cluster under a script of faults and judges what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from asgd.api import replay, train
from asgd.bench.chaos.counting import Span, differing, doubled, others_rates
from asgd.bench.chaos.proxy import Proxy
from asgd.bench.chaos.script import Fault
from asgd.bench.chaos.striking import Striker
from asgd.bench.chaos.survival import Survival, survived
from asgd.config import Config
from asgd.errors import RunError
from asgd.run.display import Display
from asgd.run.ledger import check_trace
from asgd.run.result import Run
from asgd.run.signals import StopRequests


def chaos_config(config: Config, script: Sequence[Fault], *, mode_is_set: bool) -> Config:
    """The run's configuration with room for the script: as many restarts as there are faults, and exact recovery unless
    the configuration says otherwise.
    """
    num = len(script) + 3
    cluster = msgspec.structs.replace(config.cluster, max_restarts=num, max_server_restarts=num)
    recovery = config.recovery if mode_is_set else msgspec.structs.replace(config.recovery, mode="exact")
    return msgspec.structs.replace(config, cluster=cluster, recovery=recovery)


def run_chaos(
    config: Config,
    script: Sequence[Fault],
    path: Path,
    *,
    seed: int = 0,
    data_root: Path | str | None = None,
    overwrite: bool = False,
    display: Display | None = None,
    stops: StopRequests | None = None,
    machine: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Survival:
    """Train as configured while the script strikes, and judge the record.

    Args: config: see `chaos_config`; script: the faults; path: the run's directory; seed: of the script, told in the
    result; display, stops: as for `asgd.train`; say: takes a line about each fault.
    Errors: ConfigError. A run that fails is a result too.
    """
    error = None
    with Proxy() as proxy:
        striker = Striker(script, config, path, proxy, say)
        try:
            train(config, run_dir=path, data_root=data_root, overwrite=overwrite, display=display, stops=stops,
                  watcher=striker)  # fmt: skip
        except RunError as failed:
            error = str(failed)
    struck = striker.struck
    kills = [each for each in struck if each.fault.kind == "kill"]
    servers = [each for each in kills if each.fault.role == "server"]
    result = Survival(
        run=path.name,
        method=config.method.name,
        mode=config.recovery.mode,
        seed=seed,
        kills=len(kills),
        server_kills=len(servers),
        num_left=striker.num_left,
        error=error,
        went_on=all(each.goes_on_s is not None for each in struck),
        undone=sum(each.undone for each in servers),
        faults=survived(struck),
        machine=dict(machine or {}),
    )
    if config.recovery.mode == "exact":
        result.recomputed = sum(max(0, each.version - each.checkpoint) for each in servers)
    if error is None:
        say("the run has ended; computing it again")
        _judge(result, Run(path, data_root), [each.span for each in struck], data_root)
    return result


def _judge(result: Survival, run: Run, spans: Sequence[Span], data_root: Path | str | None) -> None:
    """What the record of a run that has ended says."""
    summary = run.summary
    result.versions, result.arrivals, result.wall_s = summary.versions, summary.arrivals, summary.wall_s
    result.lost, result.refused = summary.lost, summary.refused
    result.restarts, result.server_restarts = summary.restarts, summary.server_restarts
    result.parameters_sha256 = summary.parameters_sha256
    result.problems = check_trace(run.trace, summary.outstanding)
    result.doubled, result.differing = doubled(run.path), differing(run.path)
    result.deaths = others_rates(run.trace, spans)
    again = replay(run.path, check=True, data_root=data_root)
    result.exact, result.replay_s = again.is_exact, again.seconds
    if not again.is_exact:
        result.difference = again.differences[0].sentence()
