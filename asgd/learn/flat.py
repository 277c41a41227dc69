"""A model's parameters, gradients and buffers as views of two flat vectors, so that nothing is packed or unpacked.

state_S   what the server sends:  parameters (P floats), then floating-point buffers
answer_S  what a worker answers:  gradients  (P floats), then the buffers as the forward pass left them

Every tensor starts at a multiple of 16 floats (64 bytes): the last bits of a matrix product can depend on the
alignment of its inputs. The padding between tensors is always 0.

Legend of the suffixes: _P parameters with padding, _S parameters and buffers with padding, _D on the model's device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from asgd.errors import ConfigError, RunError

ALIGNMENT_BYTES = 64
_FLOATS = ALIGNMENT_BYTES // 4


@dataclass(frozen=True)
class Layout:
    """Where each tensor lies in the flat vectors: the parameters first, then the floating-point buffers.

    names, shapes, offsets: per tensor; offsets in floats, multiples of 16. num_parameter_tensors: how many of them are
    parameters. size_P, size_S: floats of the parameter part and of the whole, padding included. num_parameters: the
    true number of parameters. digest: hex SHA-256 of names, shapes and types; equal digests, interchangeable vectors.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    num_parameter_tensors: int
    size_P: int
    size_S: int
    num_parameters: int
    digest: str

    @staticmethod
    def of(parameters: Sequence[tuple[str, tuple[int, ...]]], buffers: Sequence[tuple[str, tuple[int, ...]]]) -> Layout:
        """Lay out tensors of these names and shapes one after the other."""
        offsets, end, size_P = [], 0, 0
        for index, (_, shape) in enumerate([*parameters, *buffers]):
            offsets.append(end)
            end += -(-prod(shape) // _FLOATS) * _FLOATS
            if index + 1 == len(parameters):
                size_P = end
        what = [["float32", list(parameters)], ["float32", list(buffers)]]
        return Layout(
            names=tuple(name for name, _ in [*parameters, *buffers]),
            shapes=tuple(shape for _, shape in [*parameters, *buffers]),
            offsets=tuple(offsets),
            num_parameter_tensors=len(parameters),
            size_P=size_P,
            size_S=end,
            num_parameters=sum(prod(shape) for _, shape in parameters),
            digest=hashlib.sha256(json.dumps(what).encode()).hexdigest(),
        )

    def views(self, flat_S: Tensor) -> list[Tensor]:
        """Return one view of a flat vector [S] (or [P]: the parameters only) per tensor, in order."""
        count = self.num_parameter_tensors if len(flat_S) == self.size_P else len(self.names)
        places = list(zip(self.offsets, self.shapes, strict=True))[:count]
        return [flat_S[offset : offset + prod(shape)].view(shape) for offset, shape in places]

    def parameters_sha256(self, flat_S: Tensor) -> str:
        """Return the hex SHA-256 of the parameters' bytes in order, little-endian float32, without the padding."""
        digest = hashlib.sha256()
        for view in self.views(flat_S)[: self.num_parameter_tensors]:
            digest.update(view.reshape(-1).numpy().astype("<f4", copy=False).data)
        return digest.hexdigest()


def resolve_device(device: str | torch.device, worker: int = 0) -> torch.device:
    """Return the device that a configuration names.

    Arguments: device: "auto" (CUDA when there is one, else the CPU), "cpu", "cuda" or "cuda:N"; worker: with "auto" and
    "cuda", worker i takes device i mod the number of devices.
    Errors: ConfigError when there is no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    count = torch.cuda.device_count()
    if device == "auto":
        return torch.device("cuda", worker % count) if count else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device = {device!r} is not a device; allowed: auto, cpu, cuda, cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) < count:
        return torch.device("cuda", worker % count if chosen.index is None else chosen.index)
    if chosen.type != "cpu":
        raise ConfigError(
            f"device = {str(device)!r} is not there: this machine has {count} CUDA device{'' if count == 1 else 's'}; "
            "allowed: auto, cpu, cuda, cuda:N"
        )
    return chosen


def aligned_zeros(size: int, *, pinned: bool = False) -> Tensor:
    """Return a float32 CPU vector of zeros that starts at a multiple of 64 bytes (page-locked, for CUDA's copies)."""
    memory = torch.zeros(size + _FLOATS, dtype=torch.float32, pin_memory=pinned)
    start = -(memory.data_ptr() // 4) % _FLOATS
    return memory[start : start + size]


class FlatModel:
    """A module whose parameters, gradients and buffers are views of flat vectors.

    Arguments: module: its trainable parameters and persistent floating-point buffers must be float32; it belongs to
    the FlatModel from then on. device: see `resolve_device`.
    Attributes: module, device, layout; state_S and answer_S, CPU float32 [S], 64-byte aligned, the same memory for ever
    (on a CPU the module works in them; on CUDA `begin` uploads one and `finish` downloads the other); params_P,
    gradient_P, state_buffers, buffers: their parts.
    A parameter with requires_grad = False, a buffer that is not floating-point (num_batches_tracked) and a
    non-persistent buffer stay with the process, and `begin` puts such buffers back to their first values, so that a job
    doesn't depend on the jobs before it. Tied parameters are there once.
    Errors: ConfigError naming the parameter or buffer.

    Example:
        >>> import torch
        >>> flat = FlatModel(torch.nn.Linear(3, 2), "cpu")
        >>> flat.layout.num_parameters, flat.layout.size_P
        (8, 32)
        >>> flat.begin()
        >>> flat.module(torch.ones(1, 3)).sum().backward()
        >>> flat.finish()
        >>> flat.gradient_P[:6].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, module: nn.Module, device: str | torch.device = "cpu") -> None:
        if not isinstance(module, nn.Module):
            raise ConfigError(f"the task's model() must return a torch.nn.Module, not {type(module).__name__}")
        for name, parameter in module.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ConfigError(f"parameter {name} has no shape yet: the task's modules must be given their sizes")
        self.device = resolve_device(device)
        self.module = module.to(self.device)
        parameters = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        persistent = set(module.state_dict(keep_vars=True))
        buffers = [(n, b) for n, b in module.named_buffers() if n in persistent and b.is_floating_point()]
        for kind, tensors in (("parameter", parameters), ("buffer", buffers)):
            for name, tensor in tensors:
                if tensor.dtype != torch.float32 or tensor.layout != torch.strided:
                    raise ConfigError(f"{kind} {name} is {tensor.dtype}; parameters and buffers must be dense float32")
        if not any(parameter.numel() for _, parameter in parameters):
            raise ConfigError("the task's model has no parameters that could be trained")
        self.layout = Layout.of([(n, tuple(p.shape)) for n, p in parameters], [(n, tuple(b.shape)) for n, b in buffers])
        size_P, size_S, on_cpu = self.layout.size_P, self.layout.size_S, self.device.type == "cpu"
        self.state_S = aligned_zeros(size_S, pinned=not on_cpu)
        self.answer_S = aligned_zeros(size_S, pinned=not on_cpu)
        self.params_P, self.state_buffers = self.state_S[:size_P], self.state_S[size_P:]
        self.gradient_P, self.buffers = self.answer_S[:size_P], self.answer_S[size_P:]
        self._state_D = self.state_S if on_cpu else torch.zeros(size_S, device=self.device)
        self._answer_D = self.answer_S if on_cpu else torch.zeros(size_S, device=self.device)
        self._parameters = [parameter for _, parameter in parameters]
        self._buffers = [buffer for _, buffer in buffers]
        self._owners = [(module.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n, _ in buffers]
        # What stays with the process must not carry anything from one job to the next.
        flat_buffers = set(map(id, self._buffers))
        self._local = [
            (buffer, buffer.detach().clone(), buffer._version)
            for buffer in module.buffers()
            if id(buffer) not in flat_buffers
        ]
        state, answer = self.layout.views(self._state_D), self.layout.views(self._answer_D)
        count = len(parameters)
        with torch.no_grad():
            for value, view in zip([*self._parameters, *self._buffers], state, strict=True):
                view.copy_(value)
            # `.data =` and not a new object: what else holds this parameter or buffer (tied weights) follows.
            for parameter, view, gradient in zip(self._parameters, state, answer, strict=False):
                parameter.data = view
                parameter.grad = gradient
            for buffer, view in zip(self._buffers, answer[count:], strict=True):
                buffer.data = view
            self._answer_D[size_P:].copy_(self._state_D[size_P:])
        self._places = [view.data_ptr() for view in [*state[:count], *answer]]
        if not on_cpu:
            self.state_S.copy_(self._state_D)
            self.answer_S.copy_(self._answer_D)

    def begin(self, *, gradient: bool = True) -> None:
        """Take over state_S before a forward pass: upload it (CUDA), reset the buffers to it, zero the gradient.

        gradient False: for evaluation, which needs none.
        """
        self._reattach_buffers()
        self._restore_local()
        if self._state_D is not self.state_S:
            self._state_D.copy_(self.state_S, non_blocking=True)
        self._answer_D[self.layout.size_P :].copy_(self._state_D[self.layout.size_P :])
        if gradient:
            self._answer_D[: self.layout.size_P].zero_()

    def finish(self) -> None:
        """Complete answer_S after a backward pass: download it (CUDA).

        Errors: RunError when the task's code has moved a parameter or gradient out of the flat vectors.
        """
        self._reattach_buffers()
        here = [p.data_ptr() for p in self._parameters]
        here += [0 if p.grad is None else p.grad.data_ptr() for p in self._parameters]
        for index, (found, expected) in enumerate(zip(here, self._places, strict=False)):
            if found != expected:
                name = self.layout.names[index % len(self._parameters)]
                raise RunError(
                    f"the task's model or loss moved parameter {name} or its gradient to other memory during a job "
                    "(for instance by .to(), .data =, zero_grad() or flatten_parameters()); it must leave them in place"
                )
        if self._answer_D is not self.answer_S:
            self.answer_S.copy_(self._answer_D)

    @torch.no_grad()
    def _restore_local(self) -> None:
        """Put the buffers that aren't in the flat vectors back to what they were at first, if a job has changed
        them."""
        for index, (buffer, initial, version) in enumerate(self._local):
            if buffer._version != version:
                buffer.copy_(initial)
                self._local[index] = buffer, initial, buffer._version

    def _reattach_buffers(self) -> None:
        """Copy back buffers that a module replaced instead of changing them in place (self.mean = 0.9 * self.mean)."""
        if not self._buffers:
            return
        places = self._places[2 * len(self._parameters) :]
        views = self.layout.views(self._answer_D)[len(self._parameters) :]
        for (owner, name), buffer, view, place in zip(self._owners, self._buffers, views, places, strict=True):
            current = getattr(owner, name)
            if current is buffer and buffer.data_ptr() == place:
                continue
            if not isinstance(current, Tensor) or current.shape != view.shape:
                raise RunError(f"the task's model changed the shape of buffer {name}; it must keep {list(view.shape)}")
            view.copy_(current.detach())
            buffer.data = view
            setattr(owner, name, buffer)

    def state_view(self) -> memoryview:
        """Return state_S as writable bytes."""
        return self.state_S.numpy().data.cast("B")

    def answer_view(self) -> memoryview:
        """Return answer_S as writable bytes."""
        return self.answer_S.numpy().data.cast("B")

    def parameters_sha256(self, state_S: Tensor | None = None) -> str:
        """Return the hex SHA-256 of the parameters of state_S (default: this model's own), without the padding."""
        return self.layout.parameters_sha256(self.state_S if state_S is None else state_S)

    def named_tensors(self, state_S: Tensor | None = None) -> dict[str, Tensor]:
        """Return copies of everything in the module's state_dict, for export, with the values of state_S."""
        views = self.layout.views(self.state_S if state_S is None else state_S)
        flat = dict(zip(map(id, [*self._parameters, *self._buffers]), views, strict=True))
        tensors = self.module.state_dict(keep_vars=True)
        return {name: flat.get(id(tensor), tensor).detach().cpu().clone() for name, tensor in tensors.items()}
