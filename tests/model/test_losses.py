"""Losses against the equations and against autograd."""

import pytest
import torch

from dop_lightning.model.losses import AbsoluteLoss, Loss, SquaredLoss, total
from tests.suites.part import ROUNDING, draw

SHAPES = [(2, 5), (3, 4, 5), (2, 3, 4, 2)]
SQUARED = ["quarter", "half", "sum", "mean"]
LOSSES = [*(SquaredLoss(r) for r in SQUARED), AbsoluteLoss("sum"), AbsoluteLoss("mean")]


def name(loss: Loss) -> str:
    return f"{type(loss).__name__}-{loss.reduction}"  # type: ignore[attr-defined]


def weight(reduction: str, count: int) -> float:
    return {"quarter": 1 / 4, "half": 1 / 2, "sum": 1.0, "mean": 1 / count}[reduction]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", SQUARED)
def test_squared_value(reduction: str, shape: tuple[int, ...]) -> None:
    """A quarter in Eqs. 3 and 9, a half in Eq. 4, 1 in Eq. 5, the mean in the authors' code."""
    r = draw(0, shape)
    values = SquaredLoss(reduction).value(r)  # type: ignore[arg-type]
    assert values.shape == shape[:1]
    for k in range(shape[0]):
        expected = weight(reduction, r[k].numel()) * torch.linalg.vector_norm(r[k]) ** 2
        torch.testing.assert_close(values[k], expected, **ROUNDING)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_absolute_value(reduction: str, shape: tuple[int, ...]) -> None:
    """The ℓ1 norm of Eq. 2, or its mean."""
    r = draw(0, shape)
    values = AbsoluteLoss(reduction).value(r)  # type: ignore[arg-type]
    for k in range(shape[0]):
        expected = weight(reduction, r[k].numel()) * torch.linalg.vector_norm(r[k], ord=1)
        torch.testing.assert_close(values[k], expected, **ROUNDING)


def test_known_numbers() -> None:
    r = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    assert SquaredLoss().value(r).tolist() == [6.25, 0.25]  # a quarter by default
    assert SquaredLoss("half").value(r).tolist() == [12.5, 0.5]
    assert SquaredLoss("sum").value(r).tolist() == [25.0, 1.0]
    assert SquaredLoss("mean").value(r).tolist() == [12.5, 0.5]
    assert AbsoluteLoss().value(r).tolist() == [7.0, 1.0]  # the sum by default
    assert AbsoluteLoss("mean").value(r).tolist() == [3.5, 0.5]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_derivative_agrees_with_autograd(loss: Loss, shape: tuple[int, ...]) -> None:
    r = draw(0, shape).requires_grad_()
    (expected,) = torch.autograd.grad(loss.value(r).sum(), r)
    G = r.detach().clone()
    factor = loss.derivative_(G)
    assert isinstance(factor, float)
    torch.testing.assert_close(factor * G, expected, **ROUNDING)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_derivative_agrees_with_finite_differences(loss: Loss) -> None:
    r, direction, step = draw(0, (2, 6)), draw(1, (2, 6)), 1e-6
    assert (r.abs() > 10 * step * direction.abs()).all()  # no kink of |r| in between
    expected = (loss.value(r + step * direction) - loss.value(r - step * direction)) / (2 * step)
    G = r.clone()
    factor = loss.derivative_(G)
    torch.testing.assert_close(factor * total(G * direction), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_value_does_not_change_the_residual(loss: Loss) -> None:
    r = draw(0, (2, 3))
    loss.value(r)
    assert torch.equal(r, draw(0, (2, 3)))


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_nan_in_one_problem_does_not_affect_the_others(loss: Loss) -> None:
    r = draw(0, (3, 4))
    r[1, 2] = torch.nan
    assert torch.isfinite(loss.value(r)).tolist() == [True, False, True]


def test_subgradient_at_0_is_0() -> None:
    r = torch.tensor([[0.0, -2.0, 5.0]])
    assert AbsoluteLoss().derivative_(r) == 1.0
    assert r.tolist() == [[0.0, -1.0, 1.0]]


def test_total_sums_all_dimensions_except_problems() -> None:
    assert total(torch.ones(2, 3, 4, 5)).tolist() == [60.0, 60.0]


@pytest.mark.parametrize(("make", "reduction"), [(SquaredLoss, "average"), (AbsoluteLoss, "quarter")])
def test_unknown_reduction_is_refused(make, reduction: str) -> None:
    with pytest.raises(ValueError, match=f"reduction must be one of .*, got '{reduction}'"):
        make(reduction)
