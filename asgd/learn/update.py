"""The server's update: torch.optim's arithmetic on one flat parameter vector, without memory of its own per step.

How a delay's factor (step_size / base_step_size) meets the optimizer's state:
- SGD, also with momentum: it weighs this gradient as it enters the buffer; the step is of size base_step_size. Weight
  decay is not weighed: it is taken at the current parameters, which are not stale.
- Adam, AdamW are blind to a gradient's scale: the step itself is of size step_size.

Legend of the suffixes: _P parameters with padding, _S parameters and buffers with padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, sqrt
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from asgd.errors import ConfigError
from asgd.learn.corrections import BLOCK, Corrections
from asgd.learn.flat import Layout, aligned_zeros

OPTIMIZERS = ("sgd", "adam", "adamw")
Kernel = Callable[[Tensor, Tensor, list[Tensor]], None]


class HasState(Protocol):
    """What `Update` needs of a FlatModel."""

    state_S: Tensor
    layout: Layout


def is_finite(gradient: Tensor) -> bool:
    """Return whether every number of a tensor is finite: by its sum, and by a look at each only if that is not.

    Example:
        >>> is_finite(torch.tensor([3e38, 3e38])), is_finite(torch.tensor([1.0, float("nan")]))
        (True, False)
    """
    if isfinite(float(gradient.sum())):
        return True
    return all(bool(torch.isfinite(block).all()) for block in gradient.reshape(-1).split(BLOCK))


def norm_of(gradient: Tensor) -> float:
    """Return the Euclidean norm of a tensor, summed up in float64, whatever the number of threads.

    Example:
        >>> round(norm_of(torch.tensor([3e30, 4e30])) / 1e30, 6)  # whose squares float32 can not hold
        5.0
    """
    blocks = gradient.reshape(-1).split(BLOCK)
    return sqrt(sum(float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2 for block in blocks))


class Update:
    """The optimizer of a run, stepping flat.state_S in place; it allocates nothing of parameter size after its start.

    Formula, with g the gradient (clipped to norm c, if given), eta = base_step_size, f = step_size / base_step_size:
    sgd: b <- momentum b + (f g + weight_decay x), x <- x - eta b; nesterov and no momentum as in torch.optim.SGD;
    adam, adamw: torch.optim.Adam and AdamW of g with lr = step_size (the fused implementation, which may differ from
    the other in rounding).
    With f = 1 sgd does to the bit what torch.optim.SGD does (its default on a CPU, foreach = False).
    Arguments: flat: state_S [S] and its layout; optimizer: "sgd", "adam" or "adamw"; momentum in [0, 1) and nesterov
    for sgd; betas in [0, 1) and eps > 0 for adam and adamw; weight_decay >= 0; clip_norm >= 0, 0 = off.
    Errors: ConfigError naming the option.

    Example:
        >>> from asgd.learn.flat import FlatModel
        >>> flat = FlatModel(torch.nn.Linear(1, 1, bias=False))
        >>> before = float(flat.params_P[0])
        >>> update = Update(flat, "sgd", momentum=0.9)
        >>> update.apply(torch.ones(flat.layout.size_P), base_step_size=0.5, step_size=0.25)
        >>> round(before - float(flat.params_P[0]), 6)
        0.25

    Source: torch.optim.SGD, Adam, AdamW; the factor: delay-adaptive steps of arXiv:2206.08307, Algorithm 1.
    """

    def __init__(
        self,
        flat: HasState,
        optimizer: str = "sgd",
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip_norm: float = 0.0,
    ) -> None:
        _check(optimizer in OPTIMIZERS, "name", optimizer, ", ".join(OPTIMIZERS))
        is_sgd = optimizer == "sgd"
        _check(0.0 <= momentum < 1.0, "momentum", momentum, "0 <= momentum < 1")
        _check(is_sgd or momentum == 0.0, "momentum", momentum, f"0 with {optimizer}, which has betas instead")
        _check(not nesterov or momentum > 0.0, "nesterov", nesterov, "false, or momentum above 0")
        _check(0.0 <= weight_decay < float("inf"), "weight_decay", weight_decay, "0 or more")
        _check(len(betas) == 2 and all(0.0 <= b < 1.0 for b in betas), "betas", betas, "two numbers, 0 <= beta < 1")
        _check(0.0 < eps < float("inf"), "eps", eps, "above 0")
        _check(0.0 <= clip_norm < float("inf"), "clip_norm", clip_norm, "0 (off) or more")
        self._size_P = flat.layout.size_P
        self._params_P = flat.state_S[: self._size_P]
        self._buffers = flat.state_S[self._size_P :]
        self._optimizer, self._momentum, self._nesterov = optimizer, momentum, nesterov
        self._weight_decay, self._betas, self._eps, self._clip_norm = weight_decay, tuple(betas), eps, clip_norm
        names = ("exp_avg", "exp_avg_sq") if not is_sgd else ("momentum",) if momentum else ()
        self._state_P = {name: aligned_zeros(self._size_P) for name in names}
        self._slots_P: dict[int, Tensor] = {}
        self._sum_P: Tensor | None = None  # of several slots, made when it is first needed
        self.corrections = Corrections(self._params_P, self._state_P.get("momentum"))
        self._filled: set[int] = set()  # the others are zero, whatever their memory still holds
        self._steps = 0

    @torch.no_grad()
    def apply(self, gradient_P: Tensor, *, base_step_size: float, step_size: float, clip: float | None = None) -> None:
        """Make one step with a gradient, which is not changed.

        Arguments: gradient_P [P]; base_step_size: the scheduled step size eta; step_size: eta times the delay's factor;
        clip: a norm that this gradient is clipped to (with clip_norm as well, the smaller one), before the factor.
        Errors: ConfigError for a gradient of another length, or step sizes that are not finite or negative.
        """
        self._step(self._checked(gradient_P), 1.0, base_step_size, step_size, clip)

    @torch.no_grad()
    def add_to_slot(self, slot: int, gradient_P: Tensor, weight: float) -> None:
        """Add weight * gradient to a slot: a vector [P] of zeros until then. The memory of slots is reused."""
        self._checked(gradient_P)
        if slot not in self._slots_P:
            self._slots_P[slot] = aligned_zeros(self._size_P)
        if slot in self._filled:
            self._slots_P[slot].add_(gradient_P, alpha=weight)
        else:
            torch.mul(gradient_P, weight, out=self._slots_P[slot])
            self._filled.add(slot)

    @torch.no_grad()
    def store_in_slot(self, slot: int, gradient_P: Tensor) -> None:
        """Put a gradient into a slot, in place of what was there."""
        self._filled.discard(slot)
        self.add_to_slot(slot, gradient_P, 1.0)

    @torch.no_grad()
    def step_slots(
        self,
        parts: Sequence[tuple[int, float]],
        *,
        base_step_size: float,
        step_size: float,
        keep: bool = False,
    ) -> None:
        """Make one step with the sum of scale * slot over `parts` as the gradient (see `apply`).

        Arguments: parts: (slot, scale), each slot once; keep: whether the slots stay as they are instead of becoming
        zero. Errors: ConfigError when nothing was added to one of the slots since it was last zero.
        """
        empty = sorted({slot for slot, _ in parts} - self._filled)
        if empty or not parts:
            raise ConfigError(f"step_slots: nothing was added to slots {empty}; filled slots: {sorted(self._filled)}")
        if len(parts) == 1:
            slot, scale = parts[0]
            self._step(self._slots_P[slot], scale, base_step_size, step_size, None)
        else:
            if self._sum_P is None:
                self._sum_P = aligned_zeros(self._size_P)
            self._sum_P.zero_()
            for slot, scale in parts:
                self._sum_P.add_(self._slots_P[slot], alpha=scale)
            self._step(self._sum_P, 1.0, base_step_size, step_size, None)
        if not keep:
            self._filled.difference_update(slot for slot, _ in parts)

    @torch.no_grad()
    def mix(self, params_P: Tensor, weight: float) -> None:
        """Move the parameters towards others: x <- (1 - weight) x + weight * params; the optimizer isn't involved."""
        self._params_P.lerp_(self._checked(params_P), weight)
        self._steps += 1

    @torch.no_grad()
    def mix_buffers(self, buffers: Tensor, weight: float) -> None:
        """Move the state's buffers towards a worker's: b <- b + weight (buffers - b); weight 1 copies, to the bit."""
        if buffers.shape != self._buffers.shape:
            raise ConfigError(f"mix_buffers: buffers are {list(buffers.shape)}, not {list(self._buffers.shape)}")
        if weight == 1.0:
            self._buffers.copy_(buffers)
        else:
            self._buffers.lerp_(buffers, weight)

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's vectors, the filled slots and what corrections keep, not copied: with `scalars`, all
        that a resume needs.
        """
        slots = {f"slot_{slot}": self._slots_P[slot] for slot in sorted(self._filled)}
        return {**self._state_P, **slots, **self.corrections.tensors()}

    def scalars(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON can hold it."""
        return {"optimizer": self._optimizer, "steps": self._steps, **self.corrections.scalars()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Take over the state that `tensors` and `scalars` returned; the next steps are then the same to the bit.

        Errors: ConfigError when it is of another optimizer or another number of parameters.
        """
        own = set(self._state_P)
        given = {name for name in tensors if not name.startswith("slot_")} - {"mean_square"}
        if scalars.get("optimizer") != self._optimizer or own != given:
            raise ConfigError(
                f"the saved optimizer is {scalars.get('optimizer')!r} with {sorted(given) or 'no vectors'}; "
                f"this configuration's is {self._optimizer!r} with {sorted(own) or 'no vectors'}"
            )
        for name, tensor in tensors.items():
            if tensor.shape != (self._size_P,) or tensor.dtype != torch.float32:
                raise ConfigError(
                    f"the saved optimizer's {name} is {tensor.dtype} {list(tensor.shape)}, not float32 [{self._size_P}]"
                )
        self._filled.clear()
        for name, tensor in tensors.items():
            if name in self._state_P:
                self._state_P[name].copy_(tensor)
            elif name.startswith("slot_"):
                self.add_to_slot(int(name.removeprefix("slot_")), tensor, 1.0)
        self.corrections.load(tensors, scalars)
        self._steps = int(scalars["steps"])

    def _checked(self, gradient_P: Tensor) -> Tensor:
        if gradient_P.shape != (self._size_P,):
            raise ConfigError(f"a gradient must have shape [{self._size_P}], not {list(gradient_P.shape)}")
        return gradient_P

    def _step(self, gradient_P: Tensor, scale: float, base: float, step_size: float, clip: float | None) -> None:
        """Make one step with scale * gradient_P."""
        if not (0.0 <= base < float("inf") and 0.0 <= step_size < float("inf")) or (base == 0.0 != step_size):
            raise ConfigError(f"step_size = {step_size} with base_step_size = {base}: both must be finite, 0 or more")
        if clip is not None and not clip > 0.0:
            raise ConfigError(f"clip = {clip} must be above 0, or None for off")
        limits = [limit for limit in (self._clip_norm, clip) if limit]
        if limits:
            norm = float(torch.linalg.vector_norm(gradient_P))
            if not isfinite(norm):  # the squares overflow float32, the numbers don't
                norm = float(torch.linalg.vector_norm(gradient_P, dtype=torch.float64))
            norm *= abs(scale)
            if norm > min(limits):
                scale *= min(limits) / norm
        if self._optimizer != "sgd":
            self._for_blocks(gradient_P, scale, self._adam(step_size))
        elif not self._momentum and not self._weight_decay:
            self._params_P.add_(gradient_P, alpha=-(step_size * scale))
        else:
            factor = 1.0 if step_size == base else step_size / base
            self._for_blocks(gradient_P, scale * factor, self._sgd(base))
        self._steps += 1

    def _for_blocks(self, gradient_P: Tensor, factor: float, kernel: Kernel) -> None:
        """Call kernel(parameters, factor * gradient, states) for each block of the vectors."""
        states = [state.split(BLOCK) for state in self._state_P.values()]
        for index, (params, gradient) in enumerate(
            zip(self._params_P.split(BLOCK), gradient_P.split(BLOCK), strict=True)
        ):
            if factor != 1.0:
                gradient = gradient * factor
            kernel(params, gradient, [state[index] for state in states])

    def _sgd(self, step_size: float) -> Kernel:
        def kernel(params: Tensor, gradient: Tensor, states: list[Tensor]) -> None:
            # Not the fused kernel, which is not bound to round as torch.optim.SGD's default does (it differs in the
            # last elements of tensors of odd sizes): these are the same elementwise operations, so the same bits.
            sgd(
                [params],
                [gradient],
                [*states] or [None],
                foreach=False,
                fused=False,
                weight_decay=self._weight_decay,
                momentum=self._momentum,
                lr=step_size,
                dampening=0.0,
                nesterov=self._nesterov,
                maximize=False,
            )

        return kernel

    def _adam(self, step_size: float) -> Kernel:
        def kernel(params: Tensor, gradient: Tensor, states: list[Tensor]) -> None:
            adam(
                [params],
                [gradient],
                [states[0]],
                [states[1]],
                [],
                [torch.tensor(float(self._steps))],  # steps made so far; adam adds this one
                foreach=False,
                fused=True,
                decoupled_weight_decay=self._optimizer == "adamw",
                amsgrad=False,
                beta1=self._betas[0],
                beta2=self._betas[1],
                lr=step_size,
                weight_decay=self._weight_decay,
                eps=self._eps,
                maximize=False,
            )

        return kernel


def _check(good: bool, option: str, given: object, allowed: str) -> None:
    if not good:
        raise ConfigError(f"optimizer.{option} = {given!r} is not allowed; allowed: {allowed}")
