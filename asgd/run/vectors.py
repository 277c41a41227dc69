"""Carries out the core's actions on vectors: the one executor that the server and the simulator share.

Legend of the suffixes: _P parameters with padding, _S parameters and buffers with padding.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from asgd.config import Config
from asgd.core.actions import Accumulate, Action, Apply, Compensate, Correction, DivideByGap, Mix, Step, Store
from asgd.core.methods import METHODS
from asgd.learn.update import HasState, Update
from asgd.run.reads import Reads

# What is kept of what jobs were given: nothing, the parameters (for methods that need them), or parameters and buffers
# (for whoever computes the jobs again).
Keeps = Literal["nothing", "parameters", "state"]


def make_update(config: Config, flat: HasState) -> Update:
    """The configured optimizer on the parameters of `flat`: the same for the server and the simulator."""
    optimizer = config.optimizer
    own: dict[str, Any] = (
        {"momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
        if optimizer.name == "sgd"
        else {"betas": optimizer.betas, "eps": optimizer.eps}
    )
    return Update(flat, optimizer.name, weight_decay=optimizer.weight_decay, clip_norm=optimizer.clip_norm, **own)


def kept_of_jobs(config: Config) -> Keeps:
    """What the server of a configured run keeps of what its jobs were given."""
    if config.recovery.mode == "exact":
        return "state"
    info = METHODS[config.method.name]
    return "parameters" if info.needs_read_parameters or info.needs_distance else "nothing"


class Vectors:
    """The model and the optimizer of a run, stepped by the core's actions, and what outstanding jobs were given.

    Arguments: flat: the parameters and buffers (state_S) that are stepped in place; update: the optimizer on them;
    keeps: what is kept of what jobs were given.
    """

    def __init__(self, flat: HasState, update: Update, keeps: Keeps = "nothing") -> None:
        self.flat, self.update, self.keeps, self.reads = flat, update, keeps, Reads()
        self._size_P = flat.layout.size_P
        self._has_buffers = flat.state_S.numel() > self._size_P
        # Grows with whatever may change what a job is given. Buffers change within a version, too.
        self._num_states = 0

    def given(self, job: int) -> bool:
        """A job was given the parameters and buffers of now; says whether anything had to be done for that."""
        if self.keeps == "nothing":
            return False
        vector = self.flat.state_S if self.keeps == "state" else self.flat.state_S[: self._size_P]
        self.reads.given(job, self._num_states, vector)
        return True

    def read_P(self, job: int) -> Tensor | None:
        """The parameters that an outstanding job was given; None if they aren't kept."""
        read = self.reads.of(job)
        return None if read is None else read[: self._size_P]

    def execute(self, action: Action, answer_S: Tensor, read_P: Tensor | None = None) -> bool:
        """Carry out `action`, if it is one on vectors, with the arrival's vector; says whether it was.

        Arguments: answer_S: gradient (or parameters, for Mix) and buffers of the arrival that is being handled;
        read_P: the parameters that its job was given, for the methods that need them.
        """
        answer_P, buffers = answer_S[: self._size_P], answer_S[self._size_P :]
        match action:
            case Apply(step_size, weight, clip, correction):
                if correction is not None:
                    answer_P = self._corrected(correction, answer_P, read_P)
                self.update.apply(answer_P, base_step_size=step_size.base, step_size=step_size.value, clip=clip)
                self.update.mix_buffers(buffers, weight)
            case Mix(share, weight):
                self.update.mix(answer_P, share)
                self.update.mix_buffers(buffers, weight)
            case Accumulate(slot, share, weight):
                self.update.add_to_slot(slot, answer_P, share)
                self.update.mix_buffers(buffers, weight)
            case Store(slot, weight):
                self.update.store_in_slot(slot, answer_P)
                self.update.mix_buffers(buffers, weight)
            case Step(parts, step_size, keep):
                base, value = step_size
                self.update.step_slots(parts, base_step_size=base, step_size=value, keep=keep)
            case _:
                return False
        if self._has_buffers or isinstance(action, Apply | Mix | Step):
            self._num_states += 1
        return True

    def _corrected(self, correction: Correction, gradient_P: Tensor, read_P: Tensor | None) -> Tensor:
        if read_P is None:
            raise ValueError(f"{correction} needs the parameters that the job was given, which were not kept")
        corrections = self.update.corrections
        match correction:
            case Compensate(strength, decay, eps):
                return corrections.compensated(gradient_P, read_P, strength=strength, decay=decay, eps=eps)
            case DivideByGap(longest_step, decay, eps):
                return corrections.divided_by_gap(gradient_P, read_P, longest_step=longest_step, decay=decay, eps=eps)
