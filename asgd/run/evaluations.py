"""Which versions are evaluated, and the snapshots that wait for it.

Evaluation never runs on the server's path. When a version is due the server keeps a copy of its parameters (in memory
for "during", in a file for "after", so that nothing but a copy disturbs the training), and evaluators fetch the
copies one by one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
MAX_LATE = 2  # evaluators that may be too late with one snapshot; after those it is given up


@dataclass
class Snapshot:
    """A version that waits for its evaluation; its parameters are in memory or in a file of raw float32."""

    version: int
    samples: int
    time_s: float
    train_loss: float | None
    state_S: Tensor | None
    path: Path | None
    num_late: int = 0  # evaluators that had it for too long

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
            path = self._path_of(state.version)
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
        self._passed(state, now_s)

    def _path_of(self, version: int) -> Path:
        return self._directory / f"{version:010d}.f32"

    def _passed(self, state: ServerState, now_s: float) -> None:
        self._points_passed = self._points(state, now_s)
        self._last_version = state.version
        self._loss_sum, self._num_losses = 0.0, 0

    def kept(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint must hold so that no evaluation is missing after it: the open snapshots (those of "after"
        are in their files), and the losses since the last one.
        """
        snapshots = sorted((*self._at_work.values(), *self._waiting), key=lambda snapshot: snapshot.version)
        plain = {
            # Losses as text: JSON has no numbers that are not finite.
            "open": [
                [s.version, s.samples, s.time_s, None if s.train_loss is None else repr(s.train_loss)]
                for s in snapshots
            ],
            "losses": [repr(self._loss_sum), self._num_losses],
            "last_version": self._last_version,
            "skipped": self.skipped,
        }
        return plain, {str(s.version): s.state_S for s in snapshots if s.state_S is not None}

    def resume_at(
        self,
        state: ServerState,
        now_s: float,
        done: Collection[MetricsRow],
        plain: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        state_bytes: int,
    ) -> list[int]:
        """Go on after a restart with what `kept` gave; returns the versions whose snapshots are missing.

        Arguments: state, now_s: of the checkpoint; done: the evaluations in the record, which aren't due again; plain,
        tensors: of the checkpoint, empty without one; state_bytes: the length of a snapshot. Others are removed.
        """
        evaluated, missing = {row.version for row in done}, list[int]()
        if plain or done or state.version:  # otherwise it is the beginning, and version 0 is due
            self._points_passed = self._points(state, now_s)
        self.latest = max(done, key=lambda row: row.version, default=None)
        until_then = (row.version for row in done if row.version <= state.version)
        self._last_version = max(plain.get("last_version", -1), *until_then, -1)
        loss_sum, self._num_losses = plain.get("losses", ("0.0", 0))
        self._loss_sum = float(loss_sum)
        for version, samples, time_s, train_loss in plain.get("open", []):
            copy, path = tensors.get(str(version)), self._path_of(version)
            if version in evaluated:
                continue
            if copy is None and not (path.is_file() and path.stat().st_size == state_bytes):
                missing.append(version)
                continue
            loss = None if train_loss is None else float(train_loss)
            self._waiting.append(Snapshot(version, samples, time_s, loss, copy, path if copy is None else None))
        still_open = {snapshot.path for snapshot in self._waiting}
        for left_behind in self._directory.glob("*.f32"):
            if left_behind not in still_open:
                left_behind.unlink(missing_ok=True)
        self.skipped = plain.get("skipped", 0) + len(missing)
        return missing

    def pass_if_due(self, state: ServerState, now_s: float) -> None:
        """Count the current version as kept, if it is due: its evaluation is in the record already."""
        if self._due(state, now_s):
            self._passed(state, now_s)

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

    def recorded(self, version: int) -> None:
        """A result is in the file of the record: its snapshot isn't needed again, whatever happens."""
        if self._config.evaluate == "after":
            self._path_of(version).unlink(missing_ok=True)

    def is_at_work(self, evaluator: bytes) -> bool:
        """Whether an evaluator has a snapshot whose result is awaited."""
        return evaluator in self._at_work

    def lost(self, evaluator: bytes, *, late: bool = False) -> None:
        """An evaluator is gone: what it had is evaluated again, unless it is the second that was too `late` with it."""
        snapshot = self._at_work.pop(evaluator, None)
        if snapshot is None:
            return
        snapshot.num_late += late
        if snapshot.num_late < MAX_LATE:
            self._waiting.appendleft(snapshot)
            return
        if snapshot.path is not None:
            snapshot.path.unlink(missing_ok=True)
        self.skipped += 1

    @property
    def num_missing(self) -> int:
        """Evaluations that were due and have no result: open ones, and those that slow evaluators made us skip."""
        return self.num_open + self.skipped

    @property
    def num_open(self) -> int:
        """Snapshots that are not evaluated yet."""
        return len(self._waiting) + len(self._at_work)
