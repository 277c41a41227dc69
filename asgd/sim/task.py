"""Real gradients in virtual time: the configured task on the server's and the workers' own code.

Legend of the suffixes: _S parameters and buffers in one flat vector with padding.
"""

from __future__ import annotations

from torch import Tensor

from asgd.config import Config
from asgd.core.actions import Action
from asgd.core.methods import METHODS
from asgd.learn.corrections import distance
from asgd.learn.flat import FlatModel
from asgd.learn.gradient import build_model
from asgd.learn.task import Task
from asgd.learn.update import is_finite
from asgd.run.jobs import compute_job
from asgd.run.reads import Reads
from asgd.run.shards import make_shards
from asgd.run.vectors import Vectors, make_update
from asgd.sim.virtual import Result


class TaskCompute:
    """The model of a run, and what its workers would compute.

    The parameters that a job was given are kept until the next one after it is computed, because what is done with its
    gradient may need them; jobs that were given the same share one copy.

    Arguments: config: the run's; task: loaded. Attributes: flat: the server's model; update: its optimizer.
    """

    def __init__(self, config: Config, task: Task) -> None:
        self._config, self._task = config, task
        self._shards = make_shards(config, task)
        self.flat: FlatModel = build_model(task, config.seed)
        self._worker = build_model(task, config.seed)
        self.update = make_update(config, self.flat)
        self._vectors = Vectors(self.flat, self.update)
        self._reads = Reads()
        self._computed: int | None = None  # the job that was computed last, and the parameters that it was given
        self._read_P: Tensor | None = None
        self._measures = METHODS[config.method.name].needs_distance
        self._num_mixed = 0  # actions so far that may have changed the model's buffers: they can, within a version

    def evaluated(self, state_S: Tensor) -> FlatModel:
        """A model at these parameters and buffers, to be evaluated at once."""
        self._worker.state_S.copy_(state_S)
        return self._worker

    def given(self, job: int, version: int) -> None:
        self._reads.given(job, (version, self._num_mixed), self.flat.state_S)

    def dropped(self, job: int) -> None:
        self._reads.ended(job)

    def compute(self, worker: int, job: int) -> Result:
        if self._computed is not None:
            self._reads.ended(self._computed)
        self._computed = job
        read_S = self._reads.of(job)
        assert read_S is not None
        self._worker.state_S.copy_(read_S)
        self._read_P = read_S[: self.flat.layout.size_P]
        result = compute_job(self._config, self._task, self._worker, worker, job, self._shards)
        moved = distance(self.flat.params_P, self._read_P) if self._measures else None
        return Result(result.loss, result.samples, is_finite(self._worker.answer_S), moved)

    def execute(self, action: Action) -> None:
        self._vectors.execute(action, self._worker.answer_S, self._read_P)
        if len(self.flat.state_buffers):
            self._num_mixed += 1
