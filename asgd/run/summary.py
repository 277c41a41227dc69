"""summary.json: what a run comes to, on real processes or in virtual time."""

from __future__ import annotations

import os
import platform

import msgspec
import torch

from asgd.config import Config
from asgd.core.actions import Finish
from asgd.core.ledger import Ledger
from asgd.core.state import ServerState
from asgd.learn.flat import FlatModel
from asgd.run.formats import DelaySummary, Environment, MetricsRow, ServerSummary, ServerTimes, Summary, WorkerSummary


def summarise(
    config: Config,
    state: ServerState,
    flat: FlatModel,
    finish: Finish,
    latest: MetricsRow | None,
    *,
    train_loss: float | None,
    wall_s: float,
    bytes_in: int = 0,
    bytes_out: int = 0,
    times: ServerTimes | None = None,
    refused_messages: int = 0,
    clients_cut_off: int = 0,
    max_memory_bytes: int = 0,
    restarts: int = 0,
    server_restarts: int = 0,
    startup_s: float = 0.0,
    evaluations_missing: int = 0,
) -> Summary:
    """The summary of a run that has ended.

    Arguments: state, flat: as they are at the end; finish: why; latest: the last evaluation, which counts if it is
    of the last version; train_loss: of recent jobs; wall_s: the run's clock (virtual in a simulation); times: where
    the server's went; the rest: see `Summary`.
    """
    ledger = state.ledger
    evaluated = latest if latest is not None and latest.version == state.version else None
    return Summary(
        method=state.method.name,
        versions=state.version,
        arrivals=state.gradients,
        used=ledger.num_used,
        discarded=ledger.num_discarded,
        lost=ledger.num_lost,
        refused=state.refused,
        samples=state.samples,
        wall_s=wall_s,
        concurrency=ledger.max_concurrency,
        mean_concurrency=ledger.mean_concurrency() or 0.0,
        delay=DelaySummary(
            mean_applied=ledger.mean_used_delay() or 0.0,
            average=ledger.average_delay() or 0.0,
            max=ledger.max_delay(),
            per_worker={w: s.delay_sum / s.used for w, s in sorted(ledger.per_worker.items()) if s.used},
        ),
        outstanding=ledger.in_flight_delays(),
        server=ServerSummary(
            busy_fraction=1.0 - min(1.0, times.idle_s / wall_s) if times is not None and wall_s else 0.0,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            **msgspec.structs.asdict(times or ServerTimes()),
            refused_messages=refused_messages,
            clients_cut_off=clients_cut_off,
            max_memory_bytes=max_memory_bytes,
        ),
        test_accuracy=evaluated.test_accuracy if evaluated else None,
        test_loss=evaluated.test_loss if evaluated else None,
        train_loss=train_loss,
        parameters_sha256=flat.parameters_sha256(),
        finished=finish.complete,
        stopped_because=finish.reason,
        seed=config.seed,
        environment=environment_now(),
        restarts=restarts,
        server_restarts=server_restarts,
        evaluations_missing=evaluations_missing,
        samples_per_s=state.samples / wall_s if wall_s else 0.0,
        updates_per_s=state.version / wall_s if wall_s else 0.0,
        startup_s=startup_s,
        workers=_workers(ledger),
        quarantined=dict(state.quarantined),
    )


def environment_now() -> Environment:
    """What this process runs on."""
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        platform=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 0,
    )


def _workers(ledger: Ledger) -> dict[int, WorkerSummary]:
    """Each worker's part in the run, by number."""
    by_number = sorted(
        ledger.per_worker.items()
    )  # not by who joined first: the last bits of the sum depend on the order
    total = sum(stats.weight for _, stats in by_number)
    return {
        worker: WorkerSummary(
            used=stats.used,
            discarded=stats.discarded,
            lost=stats.lost,
            share=stats.used / ledger.num_used if ledger.num_used else 0.0,
            weight=stats.weight / total if total else 0.0,
        )
        for worker, stats in by_number
    }
