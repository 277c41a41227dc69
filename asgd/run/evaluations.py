"""Which versions are evaluated, and the snapshots that wait for it.

Evaluation never runs on the server's path. When a version is due the server keeps a copy of its parameters (in memory
for "during", in a file for "after", so that nothing but a copy disturbs the training), and evaluators fetch the
copies one by one.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asgd.config import Config
from asgd.core.state import ServerState
from asgd.errors import RunError
from asgd.run.files import reason_of
from asgd.run.formats import MetricsRow

# Copies in memory at most; when an evaluator is slower than that, the newest waiting copy is replaced by a newer one.
MAX_WAITING = 3
DEFAULT_POINTS = 10


@dataclass
class Snapshot:
    """A version that waits for its evaluation; its parameters are in memory or in a file of raw float32."""

    version: int
    samples: int
    time_s: float
    train_loss: float | None
    state_S: Tensor | None
    path: Path | None

    def read(self) -> Tensor:
        """The parameters and buffers [S]."""
        if self.state_S is not None:
            return self.state_S
        assert self.path is not None
        return torch.from_file(str(self.path), size=self.path.stat().st_size // 4, dtype=torch.float32)


class Evaluations:
    """Decides when a version is due, keeps the snapshots, and makes a line of metrics.jsonl of each result.

    Arguments: config: the run's; directory: where snapshots for "after" are kept.
    """

    def __init__(self, config: Config, directory: Path) -> None:
        self._config = config.evaluation
        self._directory = directory
        self._waiting: deque[Snapshot] = deque()
        self._at_work: dict[bytes, Snapshot] = {}
        self._points_passed = -1  # version 0 is the first point
        self._loss_sum, self._num_losses = 0.0, 0
        self._last_version = -1
        self.skipped = 0
        self.latest: MetricsRow | None = None

    def heard_loss(self, loss: float | None) -> None:
        """Count a training loss towards the mean since the last evaluated version."""
        if loss is not None:
            self._loss_sum += loss
            self._num_losses += 1

    def _points(self, state: ServerState, now_s: float) -> int:
        """How many points of evaluation the run has passed."""
        every = (
            (state.version, self._config.every_versions),
            (state.samples, self._config.every_samples),
            (now_s, self._config.every_s),
        )
        if any(step for _, step in every):
            return sum(math.floor(value / step) for value, step in every if step)
        return math.floor(state.fraction_done(now_s) * DEFAULT_POINTS)

    def _due(self, state: ServerState, now_s: float) -> bool:
        """Whether the current version must be kept for evaluation; the version that a run ends with always is."""
        if self._config.evaluate == "never" or state.version == self._last_version:
            return False
        return state.finished is not None or self._points(state, now_s) > self._points_passed

    def keep_if_due(self, state: ServerState, state_S: Tensor, now_s: float) -> bool:
        """Keep a copy of the current version if it is due; says whether it was."""
        if not self._due(state, now_s):
            return False
        self._keep(state, state_S, now_s)
        return True

    def _keep(self, state: ServerState, state_S: Tensor, now_s: float) -> None:
        train_loss = self._loss_sum / self._num_losses if self._num_losses else None
        path, copy = None, None
        if self._config.evaluate == "after":
            path = self._directory / f"{state.version:010d}.f32"
            try:
                self._directory.mkdir(exist_ok=True)
                path.write_bytes(state_S.numpy().data)
            except OSError as error:
                raise RunError(f"the snapshot {path} cannot be written: {reason_of(error)}") from error
        else:
            copy = state_S.clone()
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.pop()
                self.skipped += 1
        self._waiting.append(Snapshot(state.version, state.samples, now_s, train_loss, copy, path))
        self._points_passed = self._points(state, now_s)
        self._last_version = state.version
        self._loss_sum, self._num_losses = 0.0, 0

    def resume_at(self, state: ServerState, now_s: float, latest: MetricsRow | None) -> None:
        """Go on after a restart: what had been evaluated until then isn't due again, and old snapshots go."""
        for left_behind in self._directory.glob("*.f32"):
            left_behind.unlink(missing_ok=True)
        self._points_passed = self._points(state, now_s)
        self.latest = latest
        self._last_version = latest.version if latest else -1

    def pass_by(self, state: ServerState, now_s: float) -> None:
        """Count the points of evaluation up to now as passed: what they gave is in the record already."""
        self._points_passed = self._points(state, now_s)

    def next_for(self, evaluator: bytes, training: bool) -> Snapshot | None:
        """The snapshot that an evaluator gets now, None when there is none for the time being."""
        if not self._waiting or (training and self._config.evaluate == "after"):
            return None
        self._at_work[evaluator] = self._waiting.popleft()
        return self._at_work[evaluator]

    def result(self, evaluator: bytes, version: int, results: dict[str, float]) -> MetricsRow | None:
        """The line of metrics.jsonl for an evaluator's result; None for one that it wasn't asked for."""
        snapshot = self._at_work.get(evaluator)
        if snapshot is None or snapshot.version != version:
            return None
        del self._at_work[evaluator]
        if snapshot.path is not None:
            snapshot.path.unlink(missing_ok=True)
        row = MetricsRow(
            time_s=snapshot.time_s,
            version=version,
            samples_seen=snapshot.samples,
            test_loss=results.get("loss"),
            test_accuracy=results.get("accuracy"),
            train_loss=snapshot.train_loss,
            results=dict(results),
        )
        if self.latest is None or row.version >= self.latest.version:
            self.latest = row
        return row

    def is_at_work(self, evaluator: bytes) -> bool:
        """Whether an evaluator has a snapshot whose result is awaited."""
        return evaluator in self._at_work

    def lost(self, evaluator: bytes) -> None:
        """An evaluator is gone: what it had is evaluated again."""
        snapshot = self._at_work.pop(evaluator, None)
        if snapshot is not None:
            self._waiting.appendleft(snapshot)

    @property
    def num_missing(self) -> int:
        """Evaluations that were due and have no result: open ones, and those that a slow evaluator made us skip."""
        return self.num_open + self.skipped

    @property
    def num_open(self) -> int:
        """Snapshots that are not evaluated yet."""
        return len(self._waiting) + len(self._at_work)
