"""Many copies of one analytic problem on one schedule: a whole grid of step sizes and seeds in one run of the core.

Who finishes when, and what the core decides, depends on speeds and methods and not on the values of the vectors. So
one run of the core with the base step size 1 serves all members of an ensemble; each multiplies by its own step size.

Legend of the suffixes: _E step sizes, _R seeds, _D coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asgd.core.actions import Accumulate, Action, Apply, Mix, Step, Store
from asgd.run.computed import Result
from asgd.sim.problems import Problem

Array = npt.NDArray[np.float32]


class Ensemble:
    """The members' iterates, and what their workers compute: a `Compute` for the drivers of the core.

    Formula: x_{er} <- x_{er} - eta_e s g_{er} for an action with step size s (of base 1), where g_{er} = the worker's
    exact gradient at the member's own stale x_{er} + noise that depends on (seed r, job) alone.
    Arguments: problem: what is minimised; step_sizes_E: eta > 0 of each member; seeds_R: of the noise; parameters:
    whether a worker answers with its parameters after one local step, x - eta g, instead of with a gradient.
    Attributes: x_ERD: iterates minus the minimiser, [E, R, D].
    Errors: ValueError for a base step size other than 1.

    Example:
        >>> from asgd.core.actions import StepSize
        >>> from asgd.sim.problems import diagonal
        >>> ensemble = Ensemble(diagonal([2.0], start=1.0), [0.1, 0.2], seeds_R=[0])
        >>> ensemble.given(0, version=0)
        >>> _ = ensemble.compute(worker=0, job=0)
        >>> ensemble.execute(Apply(StepSize(1.0, 0.5), 1.0))
        >>> [round(float(x), 6) for x in ensemble.x_ERD.ravel()]
        [0.9, 0.8]
    """

    def __init__(
        self, problem: Problem, step_sizes_E: Sequence[float], seeds_R: Sequence[int], parameters: bool = False
    ) -> None:
        self.problem, self._seeds_R, self._parameters = problem, list(seeds_R), parameters
        shape = (len(step_sizes_E), len(self._seeds_R), problem.dimension)
        self.x_ERD = np.broadcast_to(problem.start_D, shape).astype(np.float32)
        self._steps_E = np.asarray(step_sizes_E, np.float32).reshape(-1, 1, 1)
        self._answer_ERD = np.zeros_like(self.x_ERD)
        self._scratch_ERD = np.zeros_like(self.x_ERD)
        self._slots: dict[int, Array] = {}
        # What an outstanding job was given: one copy per version, counted by the jobs that share it. Copies that are
        # no longer needed are kept for later: fresh memory costs more than the copying.
        self._read: dict[int, int] = {}
        self._copies: dict[int, tuple[Array, int]] = {}
        self._spare: list[Array] = []

    def given(self, job: int, version: int) -> None:
        copy, count = self._copies.get(version, (None, 0))
        if copy is None:
            copy = self._spare.pop() if self._spare else np.empty_like(self.x_ERD)
            np.copyto(copy, self.x_ERD)
        self._copies[version] = (copy, count + 1)
        self._read[job] = version

    def ended(self, job: int) -> None:
        version = self._read.pop(job)
        copy, count = self._copies.pop(version)
        if count > 1:
            self._copies[version] = (copy, count - 1)
        else:
            self._spare.append(copy)

    def compute(self, worker: int, job: int) -> Result:
        read_ERD = self.read(job)
        with np.errstate(over="ignore", invalid="ignore"):
            self.problem.gradient(read_ERD, worker, out=self._answer_ERD)
            noise_RD = self.problem.noise(self._seeds_R, job)
            if noise_RD is not None:
                self._answer_ERD += noise_RD
            if self._parameters:
                np.multiply(self._answer_ERD, -self._steps_E, out=self._answer_ERD)
                self._answer_ERD += read_ERD
        return Result(0.0, 1, True)

    def execute(self, action: Action) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            match action:
                case Apply(step_size, _, clip, None):
                    self._move(self._answer_ERD if clip is None else self._clipped(clip), step_size)
                case Mix(weight, _):
                    self.x_ERD *= 1.0 - weight
                    np.multiply(self._answer_ERD, weight, out=self._scratch_ERD)
                    self.x_ERD += self._scratch_ERD
                case Accumulate(slot, weight, _):
                    held = self._slots.get(slot)
                    if held is None:
                        self._slots[slot] = self._answer_ERD * np.float32(weight)
                    else:
                        np.multiply(self._answer_ERD, weight, out=self._scratch_ERD)
                        held += self._scratch_ERD
                case Store(slot, _):
                    self._slots[slot] = self._answer_ERD.copy()
                case Step(parts, step_size, keep):
                    total = np.zeros_like(self.x_ERD)
                    for slot, scale in parts:
                        np.multiply(self._slots[slot], scale, out=self._scratch_ERD)
                        total += self._scratch_ERD
                    for slot, _ in () if keep else parts:
                        del self._slots[slot]
                    self._move(total, step_size)
                case _:
                    raise ValueError(f"an ensemble can't carry out {action}")

    def read(self, job: int) -> Array:
        """The parameters that an outstanding job was given, [E, R, D]; not to be changed."""
        return self._copies[self._read[job]][0]

    def gradient_norms(self) -> npt.NDArray[np.float64]:
        """||grad f(x)||^2 of every member, [E, R]; infinite where it has diverged."""
        with np.errstate(over="ignore", invalid="ignore"):
            self.problem.gradient(self.x_ERD, None, out=self._scratch_ERD)
            norms_ER = np.einsum("erd,erd->er", self._scratch_ERD, self._scratch_ERD, dtype=np.float64)
        norms_ER[~np.isfinite(norms_ER)] = np.inf
        return norms_ER

    def _move(self, direction_ERD: Array, step_size: tuple[float, float]) -> None:
        base, value = step_size
        if base != 1.0:
            raise ValueError(f"an ensemble has its own step sizes: the core's must be 1, not {base}")
        np.multiply(direction_ERD, self._steps_E * np.float32(value), out=self._scratch_ERD)
        self.x_ERD -= self._scratch_ERD

    def _clipped(self, clip: float) -> Array:
        norms_ER = np.sqrt(np.einsum("erd,erd->er", self._answer_ERD, self._answer_ERD, dtype=np.float64))
        factor_ER = np.minimum(1.0, clip / np.maximum(norms_ER, 1e-30)).astype(np.float32)
        return self._answer_ERD * factor_ER[..., None]
