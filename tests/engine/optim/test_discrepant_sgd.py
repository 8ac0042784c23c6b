"""Discrepant learning rates: by group, by problem, by coordinate."""

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.engine.optim.discrepant_sgd import DiscrepantSGD, parameter_groups
from tests.suites.part import ROUNDING, draw


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(draw(k, shape, dtype)) for k, shape in enumerate(shapes)]


def loss(ps: list[nn.Parameter]) -> Tensor:
    return sum(((p - 1).square() * (k + 1)).sum() + p.sin().sum() for k, p in enumerate(ps))  # type: ignore[return-value]


def run(optimizer: torch.optim.Optimizer, ps: list[nn.Parameter], steps: int = 10) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss(ps).backward()
        optimizer.step()


def test_equals_torch_bit_for_bit() -> None:
    shapes = ((3, 4), (7,), (2, 2, 5), (6, 1))
    ours, theirs = parameters(*shapes), parameters(*shapes)
    run(DiscrepantSGD(parameter_groups(ours[:2], ours[2:], tau=0.013, alpha=2.7)), ours)
    run(
        torch.optim.SGD([{"params": theirs[:2], "lr": 0.013}, {"params": theirs[2:], "lr": 2.7 * 0.013}], lr=1.0),
        theirs,
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_default_rate() -> None:
    ours, theirs = parameters((3, 4)), parameters((3, 4))
    run(DiscrepantSGD(ours), ours)
    run(torch.optim.SGD(theirs, lr=1e-3), theirs)
    assert torch.equal(ours[0], theirs[0])


def test_rate_by_problem() -> None:
    (p,) = parameters((3, 4, 5), dtype=torch.float64)
    start, rates = p.detach().clone(), torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64)
    p.grad = draw(9, (3, 4, 5))
    DiscrepantSGD([{"params": [p], "lr": 0.1, "scale": [rates]}]).step()
    for k in range(3):
        torch.testing.assert_close(p.detach()[k], start[k] - 0.1 * rates[k] * p.grad[k], **ROUNDING)


def test_rate_by_coordinate() -> None:
    """The diagonal Λ of appendix A."""
    (p,) = parameters((2, 3), dtype=torch.float64)
    start, rates = p.detach().clone(), draw(4, (2, 3)).abs()
    p.grad = draw(9, (2, 3))
    DiscrepantSGD([{"params": [p], "lr": 0.1, "scale": [rates]}]).step()
    torch.testing.assert_close(p.detach(), start - 0.1 * rates * p.grad, **ROUNDING)


def test_scales_of_one_group_may_differ_in_kind() -> None:
    ps = parameters((2, 3), (4,), (2, 2), (3,), dtype=torch.float64)
    starts = [p.detach().clone() for p in ps]
    for k, p in enumerate(ps):
        p.grad = draw(10 + k, p.shape)
    vector = torch.tensor([1.0, 3.0], dtype=torch.float64)
    DiscrepantSGD([{"params": ps, "lr": 0.1, "scale": [vector, 0.5, None, 0]}]).step()
    for p, start, factor in zip(ps, starts, (vector.view(2, 1), 0.5, 1.0, 0.0), strict=True):
        torch.testing.assert_close(p.detach(), start - 0.1 * factor * p.grad, **ROUNDING)


def test_parameter_without_a_gradient_stays() -> None:
    ps = parameters((2, 3), (2, 3), (2, 3), (2, 3))
    ps[0].grad = torch.ones(2, 3)
    DiscrepantSGD([{"params": ps, "lr": 0.1, "scale": [None, None, 2.0, torch.ones(2)]}]).step()
    assert not torch.equal(ps[0], parameters((2, 3))[0])
    for p, start in zip(ps[1:], parameters((2, 3), (2, 3), (2, 3), (2, 3))[1:], strict=True):
        assert torch.equal(p, start)


def test_closure_is_evaluated_with_gradients() -> None:
    ps = parameters((2, 3))
    optimizer = DiscrepantSGD(ps, lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(ps)
        value.backward()
        return float(value.detach())

    before = float(loss(ps).detach())
    assert optimizer.step(closure) == before
    assert float(loss(ps).detach()) < before


def test_learning_rate_scheduler() -> None:
    """It changes ``lr`` of both groups and so keeps α."""
    ps = parameters((2, 3), (2, 3))
    optimizer = DiscrepantSGD(parameter_groups(ps[:1], ps[1:], tau=0.1, alpha=4.0))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    run(optimizer, ps, steps=1)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.2])


def test_rate_of_a_group() -> None:
    ps = parameters((2, 3), (2, 4))
    groups = parameter_groups(ps[:1], ps[1:], tau=0.1, alpha=4.0)
    optimizer = DiscrepantSGD(groups)
    assert optimizer.rate("theta") == 0.1
    assert optimizer.rate("corruption") == pytest.approx(0.4)
    groups = parameter_groups(ps[:1], ps[1:], tau=0.1, alpha=4.0)
    groups[0]["scale"], groups[1]["scale"] = [2.0], [torch.tensor([1.0, 0.5])]
    optimizer = DiscrepantSGD(groups)
    assert optimizer.rate("theta") == pytest.approx(0.2)
    rate = optimizer.rate("corruption")
    assert isinstance(rate, Tensor)
    assert rate.shape == (2, 1)
    torch.testing.assert_close(rate.flatten(), torch.tensor([0.4, 0.2]))


def test_groups_hold_the_two_rates() -> None:
    theta, corruption = parameters((2, 3), (4,)), parameters((5,), (6,))
    first, second = parameter_groups(theta, corruption, tau=1e-4, alpha=7.0)
    assert (first["name"], first["lr"]) == ("theta", 1e-4)
    assert (second["name"], second["lr"]) == ("corruption", 7.0 * 1e-4)
    assert all(p is q for p, q in zip(first["params"] + second["params"], theta + corruption, strict=True))


def test_empty_groups_are_omitted() -> None:
    ps = parameters((2, 3))
    assert [group["name"] for group in parameter_groups(ps, [], tau=1.0, alpha=1.0)] == ["theta"]
    assert [group["name"] for group in parameter_groups([], ps, tau=1.0, alpha=1.0)] == ["corruption"]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["tau", "alpha"])
def test_rates_of_the_method_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number above 0"):
        parameter_groups(parameters((2,)), [], **{"tau": 1.0, "alpha": 1.0, name: value})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_learning_rates_are_checked(value: float) -> None:
    with pytest.raises(ValueError, match="lr must be a finite number of at least 0"):
        DiscrepantSGD(parameters((2,)), lr=value)
    with pytest.raises(ValueError, match="lr must be a finite number of at least 0"):
        DiscrepantSGD([{"params": parameters((2,)), "lr": value}])


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ([1.0, 1.0], "scale must have one entry per parameter, 1, got 2"),
        ([-1.0], "scale must be a finite number of at least 0"),
        ([torch.tensor([1.0, -1.0])], "scale must be finite and at least 0 everywhere"),
        ([torch.tensor([1.0, torch.nan])], "scale must be finite and at least 0 everywhere"),
        (
            [torch.ones(3)],
            r"scale must have one entry per problem, \(2,\), or the shape of the parameter \(2, 3\), got \(3,\)",
        ),
        ([torch.ones(3, 2)], r"got \(3, 2\)"),
        ([torch.tensor(1.0)], r"got \(\)"),
    ],
)
def test_scales_are_checked(scale: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscrepantSGD([{"params": parameters((2, 3)), "lr": 0.1, "scale": scale}])
