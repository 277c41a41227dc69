"""Jobs computed where the model is: what a simulation, a replay and a recovery have in place of workers.

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
from asgd.learn.update import is_finite, norm_of
from asgd.run.computed import Result
from asgd.run.jobs import compute_job
from asgd.run.shards import make_shards
from asgd.run.vectors import Vectors, make_update


class TaskCompute:
    """The model of a run, and what its workers would compute, on the server's and the workers' own code.

    The parameters that a job was given are kept until it has ended, because what is done with its gradient may need
    them; jobs that were given the same share one copy.

    Arguments: config: the run's; task: loaded; flat, vectors: the server's model and what steps it, keeping "state";
    new ones without. Attributes: flat, vectors: these.
    """

    def __init__(
        self, config: Config, task: Task, flat: FlatModel | None = None, vectors: Vectors | None = None
    ) -> None:
        self._config, self._task = config, task
        self._shards = make_shards(config, task)
        self.flat = flat or build_model(task, config.seed)
        self.vectors = vectors or Vectors(self.flat, make_update(config, self.flat), "state")
        self._worker = build_model(task, config.seed)
        self._read_P: Tensor | None = None  # what the job that was computed last was given
        self._measures = METHODS[config.method.name].needs_distance

    def evaluated(self, state_S: Tensor) -> FlatModel:
        """A model at these parameters and buffers, to be evaluated at once."""
        self._worker.state_S.copy_(state_S)
        return self._worker

    def given(self, job: int, version: int) -> None:
        self.vectors.given(job)

    def ended(self, job: int) -> None:
        self.vectors.reads.ended(job)

    def compute(self, worker: int, job: int) -> Result:
        read_S = self.vectors.reads.of(job)
        assert read_S is not None
        self._worker.state_S.copy_(read_S)
        self._read_P = self.vectors.read_P(job)
        assert self._read_P is not None
        result = compute_job(self._config, self._task, self._worker, worker, job, self._shards)
        moved = distance(self.flat.params_P, self._read_P) if self._measures else None
        answer_S = self._worker.answer_S
        norm = norm_of(answer_S[: self.flat.layout.size_P]) if self._config.method.norm_guard else None
        return Result(result.loss, result.samples, is_finite(answer_S), moved, norm)

    def execute(self, action: Action) -> None:
        self.vectors.execute(action, self._worker.answer_S, self._read_P)
