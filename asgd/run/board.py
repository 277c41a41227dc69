"""A run's record as TensorBoard shows it while the run goes on: event files in RUN/tensorboard/.

Scalars, the version as step: `train_loss`, `delay`, `step_size` (means over the gradients used since the last point),
`concurrency`, `updates_per_s`; of each evaluation `evaluation/test_loss` and so on. Histograms: `delays`, `step_sizes`.
The wall time of an event is the server's start plus the run's clock (virtual in a simulation), so that TensorBoard's
axis "relative" is the run's clock.

How often: never per arrival. A point is due when `every_s` of the run's clock have passed and the arrivals have grown
by 1/200 since the last one; every tenth point has histograms. So a run of N arrivals has about 200 (1 + ln(N/200))
points at most, and a real one at most one per second. A point costs the server's thread some 0.05 ms, one with
histograms 0.3 ms, an arrival without a point 0.3 us; another thread writes the file.

A run that goes on: TensorBoard's own way to take steps back (`purge_step`) hides them in its Python reader only; the
server behind its web page goes on showing them. So all events are made anew from the record, which has been cut by
then, and what was undone is nowhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from asgd.config import Config
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, RunError
from asgd.run.files import reason_of, remove
from asgd.run.formats import MetricsRow
from asgd.run.ledger import USED
from asgd.run.records import TENSORBOARD, RunDirectory

EVERY_S = 1.0  # of a real run; a simulation's clock says nothing of what a point costs
GROWTH = 200
HISTOGRAM_EVERY = 10  # points
MOST_BARS = 64
_QUEUE = 1000  # events that wait for the writer's thread, so that a slow disk doesn't hold up the server at once
_FLUSH_S = 2  # so soon a point is in the file


def check_installed(config: Config) -> None:
    """Refuse a configuration that asks for TensorBoard's files where its package is missing; ConfigError."""
    if config.records.tensorboard and find_spec("tensorboard") is None:
        raise ConfigError(
            "records.tensorboard = true: the package tensorboard is not installed; install it (pip install "
            "'asgd[tensorboard]', or pip install tensorboard), or set the key to false"
        )


def follow_on_board(config: Config, directory: RunDirectory, now_s: float, every_s: float = EVERY_S) -> None:
    """If the configuration asks for it, show what is in a run's record on a new board, and from now on what is added.

    Arguments: directory: open for writing; now_s: the run's clock; every_s: see above.
    """
    if not config.records.tensorboard:
        return
    remove(directory.path / TENSORBOARD)
    board = Board(directory.path / TENSORBOARD, time.time() - now_s, every_s)
    directory.follow(board)
    for row in directory.read_trace():
        board.arrived(row)
    for metrics in sorted(directory.read_metrics(), key=lambda metrics: metrics.version):
        board.evaluated(metrics)


class Board:
    """Writes the event files of one run.

    Arguments: path: where; began_s: the time (of time.time()) at which the run's clock was 0; every_s: the shortest
    time between two points, in seconds of the run's clock, >= 0.
    Errors: RunError when a file can't be written.
    """

    def __init__(self, path: Path, began_s: float, every_s: float) -> None:
        from torch.utils.tensorboard import SummaryWriter  # only for those who ask for it

        self._path, self._began_s, self._every_s = path, began_s, every_s
        self._losses: list[float] = []
        self._delays: list[int] = []  # of the gradients used since the last point, and the steps' sizes
        self._step_sizes: list[float] = []
        self._older_delays: list[int] = []  # and since the last histograms, until the last point
        self._older_step_sizes: list[float] = []
        self._last_s, self._last_version, self._points = 0.0, 0, 0
        self._next_s, self._next_arrival = 0.0, 0
        self._evaluated_version = -1
        with self._naming_errors():
            self._writer = SummaryWriter(str(path), max_queue=_QUEUE, flush_secs=_FLUSH_S)

    def arrived(self, row: TraceRow) -> None:
        """Count a line of the trace, and write a point when one is due."""
        if row.loss is not None:
            self._losses.append(row.loss)
        if row.action in USED:
            self._delays.append(row.delay)
        if row.step_size is not None:
            self._step_sizes.append(row.step_size)
        due = row.arrival >= self._next_arrival and row.time_s >= self._next_s
        if due and row.steps and row.time_s > self._last_s:  # one step, one point; and a rate needs time that passed
            self._point(row)

    def evaluated(self, row: MetricsRow) -> None:
        """Write the results of an evaluation, unless a later version's are there: a board takes steps in order only."""
        if row.version <= self._evaluated_version:
            return
        self._evaluated_version = row.version
        known = {"test_loss": row.test_loss, "test_accuracy": row.test_accuracy, "train_loss": row.train_loss}
        others = {name: value for name, value in row.results.items() if name not in ("loss", "accuracy")}
        self._write({f"evaluation/{name}": value for name, value in (known | others).items()}, row.version, row.time_s)

    def _point(self, row: TraceRow) -> None:
        version = row.version + row.steps
        values = {
            "train_loss": _mean(self._losses),
            "delay": _mean(self._delays),
            "step_size": _mean(self._step_sizes),
            "concurrency": row.concurrency,
            "updates_per_s": (version - self._last_version) / (row.time_s - self._last_s),
        }
        self._write(values, version, row.time_s)
        self._points += 1
        self._older_delays += self._delays
        self._older_step_sizes += self._step_sizes
        if self._points % HISTOGRAM_EVERY == 0:
            self._write_histograms(version, self._began_s + row.time_s)
            self._older_delays, self._older_step_sizes = [], []
        self._losses, self._delays, self._step_sizes = [], [], []
        self._last_s, self._last_version = row.time_s, version
        self._next_s, self._next_arrival = row.time_s + self._every_s, row.arrival + 1 + row.arrival // GROWTH

    def _write(self, values: dict[str, float | None], version: int, time_s: float) -> None:
        with self._naming_errors():
            for name, value in values.items():
                if value is not None and math.isfinite(value):
                    self._writer.add_scalar(name, value, version, self._began_s + time_s)

    def _write_histograms(self, version: int, wall_s: float) -> None:
        import numpy as np  # a tenth of a second, for those who ask for a board

        with self._naming_errors():
            if self._older_delays:
                delays = np.asarray(self._older_delays)
                width = -(-(int(delays.max()) + 1) // MOST_BARS)  # whole delays, one a bar as long as that will do
                edges = np.arange(0, delays.max() + width + 1, width) - 0.5
                self._writer.add_histogram("delays", delays, version, edges, wall_s)
            if self._older_step_sizes:
                self._writer.add_histogram("step_sizes", np.asarray(self._older_step_sizes), version, walltime=wall_s)

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._naming_errors():
            self._writer.close()

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """The writer's thread fails first, and the next call, whichever it is, raises what it has met."""
        try:
            yield
        except OSError as error:
            raise RunError(f"{self._path} cannot be written: {reason_of(error)}.") from error


def _mean(numbers: list[float] | list[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
