"""Corrected gradients over several blocks, against the formulas in float64; the state that a resume needs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asgd.errors import ConfigError
from asgd.learn.corrections import BLOCK, Corrections, distance
from asgd.learn.flat import FlatModel
from asgd.learn.update import Update

SIZE = 2 * BLOCK + 48  # three blocks, the last one short


def vector(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def test_distance_is_the_norm_whatever_the_threads() -> None:
    a, b = vector(1), vector(2)
    expected = float(torch.linalg.vector_norm(a.double() - b.double()))
    assert distance(a, b) == pytest.approx(expected, rel=1e-7)
    threads = torch.get_num_threads()
    try:
        found = set()
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            found.add(distance(a, b))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
    assert distance(a, a) == 0.0


def test_compensated_is_the_formula_and_changes_nothing_else() -> None:
    params, read, gradient = vector(1), vector(2), vector(3)
    before = gradient.clone()
    corrections = Corrections(params, None)
    g, moved = gradient.double(), params.double() - read.double()
    result = corrections.compensated(gradient, read, strength=0.5)
    torch.testing.assert_close(result.double(), g + 0.5 * g * g * moved, rtol=1e-5, atol=1e-5)
    assert torch.equal(gradient, before) and corrections.tensors() == {}
    square = torch.zeros(SIZE, dtype=torch.float64)
    for seed in (3, 4, 5):
        g = vector(seed).double()
        square = 0.9 * square + 0.1 * g * g
        result = corrections.compensated(vector(seed), read, strength=0.5, decay=0.9)
        torch.testing.assert_close(
            result.double(), g + 0.5 / (square + 1e-7).sqrt() * g * g * moved, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("with_momentum", [False, True])
def test_divided_by_gap_is_the_formula(with_momentum: bool) -> None:
    params, read, momentum = vector(1), vector(2), vector(9)
    corrections = Corrections(params, momentum if with_momentum else None)
    square, moved = torch.zeros(SIZE, dtype=torch.float64), params.double() - read.double()
    for k, seed in enumerate((3, 4, 5), start=1):
        g = vector(seed).double()
        square = 0.9 * square + 0.1 * (momentum.double() if with_momentum else g) ** 2
        unit = 0.2 * ((square / (1 - 0.9**k)).sqrt() + 1e-8)
        result = corrections.divided_by_gap(vector(seed), read, longest_step=0.2, decay=0.9)
        torch.testing.assert_close(result.double(), g / (1 + moved.abs() / unit), rtol=1e-4, atol=1e-6)


def test_without_movement_the_gradient_stays_to_the_bit() -> None:
    params, gradient = vector(1), vector(3)
    corrections = Corrections(params, None)
    read = params.clone()
    assert torch.equal(corrections.compensated(gradient, read, strength=0.5), gradient)
    assert torch.equal(corrections.compensated(gradient, read, strength=0.5, decay=0.9), gradient)
    assert torch.equal(corrections.divided_by_gap(gradient, read, longest_step=0.1), gradient)


def test_memory_is_made_once() -> None:
    params, read = vector(1), vector(2)
    corrections = Corrections(params, None)
    places = {corrections.divided_by_gap(vector(seed), read, longest_step=0.1).data_ptr() for seed in range(4)}
    assert len(places) == 1


def test_a_resumed_optimizer_goes_on_with_the_same_bits() -> None:
    def models() -> tuple[FlatModel, Update]:
        torch.manual_seed(0)
        flat = FlatModel(nn.Linear(40, 40))
        return flat, Update(flat, momentum=0.5)

    def step(flat: FlatModel, update: Update, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        gradient = torch.randn(flat.layout.size_P, generator=generator)
        read = torch.randn(flat.layout.size_P, generator=generator)
        corrected = update.corrections.divided_by_gap(gradient, read, longest_step=0.1, decay=0.9)
        update.apply(corrected, base_step_size=0.1, step_size=0.1)

    first, update = models()
    for seed in range(5):
        step(first, update, seed)
    second, resumed = models()
    second.state_S.copy_(first.state_S)
    assert "mean_square" in update.tensors()
    resumed.load({name: tensor.clone() for name, tensor in update.tensors().items()}, update.scalars())
    for seed in range(5, 8):
        step(first, update, seed)
        step(second, resumed, seed)
    assert torch.equal(first.state_S, second.state_S)


def test_refuses_other_shapes() -> None:
    with pytest.raises(ConfigError, match="must have shape"):
        Corrections(vector(1), None).compensated(vector(1)[:16], vector(2), strength=1.0)
