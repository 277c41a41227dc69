"""Checkpoints of a running server: when they are due, what is in them, and writing them beside the training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from asgd.config import Config
from asgd.core.state import ServerState
from asgd.errors import AsgdError
from asgd.run.checkpoints import Checkpoint, save
from asgd.run.evaluations import Evaluations
from asgd.run.formats import ServerTimes
from asgd.run.records import RunDirectory
from asgd.run.vectors import Vectors

_SNAPSHOT = "snapshot."  # before the version, in the name of a tensor


class Saver:
    """Writes a checkpoint when one is due: copied by the server's thread, written by another, one at a time.

    Arguments: config: the run's; directory: the run's, whose trace is flushed first, so that it always reaches as far
    as the newest checkpoint; evaluations: whose open snapshots go into checkpoints; note: takes one line about each
    failure. A checkpoint that can't be written in mid-run is told and tried again when the next one is due; at the end
    it is an error.
    """

    def __init__(
        self, config: Config, directory: RunDirectory, evaluations: Evaluations, note: Callable[[str], None]
    ) -> None:
        self._config, self._directory, self._note = config.checkpoints, directory, note
        self._evaluations = evaluations
        self._exact = config.recovery.mode == "exact"
        self._path: Path = directory.path / "checkpoints"
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[Path] | None = None
        self._last_version, self._last_s = 0, 0.0

    def resume_at(self, version: int, now_s: float) -> None:
        self._last_version, self._last_s = version, now_s

    def save_if_due(self, state: ServerState, vectors: Vectors, now_s: float, times: ServerTimes) -> None:
        """Begin to write a checkpoint if one is due and none is being written."""
        every_versions, every_s = self._config.every_versions, self._config.every_s
        due = (every_versions and state.version - self._last_version >= every_versions) or (
            every_s and now_s - self._last_s >= every_s
        )
        if due and state.version != self._last_version and self._collect():
            self.save_now(state, vectors, now_s, times)

    def save_now(self, state: ServerState, vectors: Vectors, now_s: float, times: ServerTimes) -> None:
        """Begin to write a checkpoint; none may be being written."""
        self._last_version, self._last_s = state.version, now_s
        tensors, plain = self._gather(state, vectors, now_s, times)
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        self._running = self._writer.submit(save, self._path, copies, plain, state.version, self._config.keep)

    def wait(self) -> None:
        """Wait for the one being written, if any."""
        if self._running is not None:
            wait([self._running])

    def _gather(
        self, state: ServerState, vectors: Vectors, now_s: float, times: ServerTimes
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint of now holds, and where the journal stands, whose events are all in it; the record is on
        the disk then.
        """
        self._directory.flush(sync=True)
        tensors, plain = content(state, vectors, now_s, times, self._exact)
        evaluations, snapshots = self._evaluations.kept()
        tensors |= {f"{_SNAPSHOT}{version}": state_S for version, state_S in snapshots.items()}
        plain["evaluations"] = evaluations
        journal = self._directory.journal
        place = {"since": journal.since, "offset": journal.position, "checksum": journal.checksum}
        return tensors, plain | {"journal": place, "opened": list(journal.last_opened)}

    def _collect(self) -> bool:
        """Whether the last one has been written; tells when it could not be."""
        if self._running is None:
            return True
        if not self._running.done():
            return False
        try:
            self._running.result()
        except AsgdError as error:
            self._note(str(error))
        self._running = None
        return True

    def save_last(self, state: ServerState, vectors: Vectors, now_s: float, times: ServerTimes | None = None) -> None:
        """Write the checkpoint of the end, waiting for it; RunError when it can't be written."""
        self._writer.shutdown(wait=True)
        self._collect()
        tensors, plain = self._gather(state, vectors, now_s, times or ServerTimes())
        save(self._path, tensors, plain, state.version, self._config.keep)

    def close(self) -> None:
        """Wait for the one being written."""
        self._writer.shutdown(wait=True)
        self._collect()


def content(
    state: ServerState, vectors: Vectors, now_s: float, times: ServerTimes, exact: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint holds: flat parameters and buffers, the optimizer, the core, the clock, the layout, where the
    server's time went, and, when `exact`, what each outstanding job was given.
    """
    state.validate()
    update, flat = vectors.update, vectors.flat
    tensors = {"state_S": flat.state_S} | {f"update.{name}": tensor for name, tensor in update.tensors().items()}
    plain = {"core": state.to_dict(), "update": update.scalars(), "time_s": now_s, "layout": flat.layout.digest}
    plain["server"] = msgspec.structs.asdict(times)
    if exact:
        jobs, reads_S = vectors.reads.kept()
        tensors |= {f"read.{place}": read_S for place, read_S in enumerate(reads_S)}
        plain["reads"] = [list(pair) for pair in jobs]
    return tensors, plain


def evaluations_of(checkpoint: Checkpoint | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a checkpoint holds of the evaluations, see `Evaluations.kept`; nothing without one, or in an old one."""
    if checkpoint is None:
        return {}, {}
    tensors = {n.removeprefix(_SNAPSHOT): t for n, t in checkpoint.tensors.items() if n.startswith(_SNAPSHOT)}
    return checkpoint.state.get("evaluations", {}), tensors


def has_reads(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds what its outstanding jobs were given."""
    return "reads" in checkpoint.state


def take_over(checkpoint: Checkpoint, state: ServerState, vectors: Vectors) -> tuple[float, ServerTimes]:
    """Put a checkpoint's content back, the workers and their jobs included; returns the run's clock at that time, and
    where the server's time had gone.
    """
    vectors.flat.state_S.copy_(checkpoint.tensors["state_S"])
    prefix = "update."
    tensors = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
    vectors.update.load(tensors, checkpoint.state["update"])
    jobs = [(job, place) for job, place in checkpoint.state.get("reads", [])]
    num_reads = sum(name.startswith("read.") for name in checkpoint.tensors)
    vectors.reads.load(jobs, [checkpoint.tensors[f"read.{place}"] for place in range(num_reads)])
    core = {"members": [], "begun": False, "finished": None} | checkpoint.state["core"]  # older ones didn't keep them
    state.restore(core, 0, keep=True)
    times = checkpoint.state.get("server", {})  # checkpoints from before this was recorded have none
    return float(checkpoint.state["time_s"]), ServerTimes(**times)
