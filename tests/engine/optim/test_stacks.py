"""Matrices of several shapes as a few stacks, by which Muon multiplies them on a GPU."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dop_lightning.engine.optim import muon
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.optim.stacks import Stacks
from tests.suites.part import draw

SHAPES = [(8, 20), (4, 3), (8, 8), (5, 8), (20, 7), (1, 6), (3, 4), (1, 1)]


def test_matrices_are_restored_from_zero_padded_stacks() -> None:
    matrices = [draw(seed, shape) for seed, shape in enumerate(SHAPES)]
    stacks = Stacks(SHAPES, matrices[0])
    made = stacks.stack(matrices, torch.float64)
    assert sorted(stack.shape for stack in made) == [(2, 1, 6), (2, 3, 4), (4, 8, 20)]
    assert sum(int((stack != 0).sum()) for stack in made) == sum(matrix.numel() for matrix in matrices)
    for one, other in zip(stacks.unstack(made, torch.float64), matrices, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("dtype", "precision", "tolerance"), [
    (torch.float64, "fp32", 1e-9), (torch.float32, "fp32", 1e-4), (torch.float32, "bf16", 0.2),
])  # fmt: skip
def test_matrices_in_stacks_are_orthogonalised_independently(
    dtype: torch.dtype, precision: str, tolerance: float
) -> None:
    matrices = [draw(seed, shape, dtype) for seed, shape in enumerate(SHAPES)]
    matrices[2].zero_()
    merged = muon._orthogonalise_padded(matrices, Stacks(SHAPES, matrices[0]), precision)
    for one, other in zip(merged, muon._orthogonalise_by_shape(matrices, precision), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_steps_need_few_operations_on_a_gpu() -> None:
    empty = partial(torch.empty, device="meta", memory_format=torch.channels_last)
    kernels = [nn.Parameter(empty(8, width, size, size)) for size in (1, 3) for width in (4, 8, 9)]
    optimizer = Muon(kernels)
    counts = []
    for _ in range(2):
        for p in kernels:
            p.grad = torch.empty_like(p)
        with Operations() as operations:
            optimizer.step()
        counts.append([name for name in operations.names if not name.startswith("profiler")])
    # averages; stacks; three operations a round and three before them, of two stacks; back, one factor, the step
    assert len(counts[1]) <= 2 + 3 + 2 * (3 * muon.ROUNDS + 3) + 2 + 2, counts[1]
    assert counts[1].count("aten::baddbmm") == 2 * 2 * muon.ROUNDS
    assert not hasattr(copy.deepcopy(optimizer), "_stacks")
    assert list(optimizer.state_dict()) == ["state", "param_groups"]
