"""Operators from objects of other libraries: a small one of these tests, and those of deepinv if it is installed."""

import sys
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.model.operators import Operator, Physics, PhysicsOperator, operator_of
from dop_lightning.model.operators.physics import _create_physics
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.model.operators.builders import measured
from tests.suites.operator import OperatorSuite
from tests.suites.part import draw

HERE = __name__


class Rows(nn.Module):
    """Weighted sums of rows: ``(B, C, H, W)`` to ``(B, C, m, W)``, with random weights and a parameter."""

    def __init__(self, m: int, height: int = 4, scale: Any = 1.0) -> None:
        super().__init__()
        self.register_buffer("weights", torch.randn(m, height))
        self.scale = nn.Parameter(torch.as_tensor(scale))

    def A(self, x: Tensor) -> Tensor:
        return self.scale * self.weights @ x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.scale * self.weights.T @ y


class WrongAdjoint(Rows):
    def A_adjoint(self, y: Tensor) -> Tensor:
        return 2 * super().A_adjoint(y)


class WrongShape(Rows):
    def A_adjoint(self, y: Tensor) -> Tensor:
        return super().A_adjoint(y)[..., :-1]


class Affine(Rows):
    def A(self, x: Tensor) -> Tensor:
        return super().A(x) + 1


class Complex(Rows):
    def A(self, x: Tensor) -> Tensor:
        return torch.complex(super().A(x), super().A(x))


class Saturation:
    """Nonlinear operators have no adjoint."""

    def A(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


class Plain:
    """No module at all."""

    def A(self, x: Tensor) -> Tensor:
        return x[..., ::2, :]

    def A_adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(*y.shape[:-2], 2 * y.shape[-2], y.shape[-1])
        x[..., ::2, :] = y
        return x


def failing(reason: str) -> None:
    raise ValueError(reason)


class TestPhysics(OperatorSuite):
    sensing = Physics(Rows(3))
    shape: tuple[int, ...] = (2, 4, 5)

    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        return measured(self.sensing, self.shape, seed, name, dtype)

    def make(self, problems: ProblemBatch) -> Operator:
        return operator_of(problems)

    def test_shapes_are_inverse_of_each_other(self) -> None:
        assert self.sensing.signal_shape(self.sensing.observation_shape(self.shape)) == self.shape


class TestPhysicsOfAPath(TestPhysics):
    sensing = Physics(f"{HERE}.Rows", {"m": 3, "scale": {"call": "torch.tensor", "arguments": {"data": 0.5}}})

    def test_value(self) -> None:
        problems = self.problems(2)
        A = self.make(problems)
        assert isinstance(A, PhysicsOperator)
        X = self.signals(problems)
        torch.testing.assert_close(A(X), 0.5 * A.physics.weights @ X)

    def test_draws_depend_on_the_seed_only(self) -> None:
        before = torch.get_rng_state()
        settings = {"m": 3}
        one, again, other = (Physics(f"{HERE}.Rows", settings, seed).make() for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(one.weights, again.weights)
        assert not torch.equal(one.weights, other.weights)

    def test_equal_settings_share_one_operator(self) -> None:
        one, other = (Physics(f"{HERE}.Rows", {"m": 3}) for _ in range(2))
        assert one == other
        assert _create_physics(one) is _create_physics(other)
        assert len(ProblemBatch([measured(one, self.shape), measured(other, self.shape, 2, "b")])) == 2
        assert one != Physics(f"{HERE}.Rows", {"m": 2})


class TestPlainObject(TestPhysics):
    sensing = Physics(Plain())


def test_operator_copies_the_physics_and_moves_it() -> None:
    rows = Rows(3)
    (problem,) = problems = ProblemBatch([measured(Physics(rows), (1, 4, 2))])
    A = operator_of(problems).to("meta")
    assert isinstance(A, PhysicsOperator)
    assert (A.physics.weights.device.type, A.physics.weights.dtype) == ("meta", torch.float64)
    assert (rows.weights.device.type, rows.weights.dtype) == ("cpu", torch.float32)
    assert A(torch.zeros(1, 1, 4, 2, dtype=torch.float64, device="meta")).shape == (1, *problem.observation.shape)


def test_descriptions() -> None:
    assert Physics("deepinv.physics.BlurFFT", {"img_size": [3, 8, 8]}).slug == "physics-blurfft"
    assert Physics("deepinv.physics.Blur").attributes == {"sensing": "physics", "physics": "Blur"}
    assert Physics(Rows(2)).attributes == {"sensing": "physics", "physics": "Rows"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Physics(Saturation()), r"must be linear, .*, got Saturation without A_adjoint"),
        (lambda: Physics(Rows(2), {"m": 3}), "arguments must be empty if physics is an object"),
        (lambda: Physics(f"{HERE}.Saturation").make(), "got Saturation without A_adjoint"),
        (lambda: Physics(f"{HERE}.Rows", {"n": 3}).make(), r"Rows cannot be called with \{'n': 3\}"),
        (lambda: Physics(f"{HERE}.failing", {"reason": "why"}).make(), "cannot be called with .*: why"),
        (lambda: Physics(f"{HERE}.Columns").make(), "has no class or function 'Columns'"),
        (lambda: Physics("no_such_package.Blur").make(), r"no_such_package\.Blur: No module named 'no_such_package'"),
        (lambda: Physics("Blur").make(), r"must be a dotted path such as deepinv\.physics\.Blur, got 'Blur'"),
        (lambda: Physics(Rows(3)).observation_shape((1, 7, 7)), r"A failed for the shape \(1, 7, 7\)"),
        (lambda: Physics(Affine(3)).observation_shape((1, 4, 7)), r"must be linear, but A\(2X \+ Z\)"),
        (lambda: Physics(WrongAdjoint(3)).observation_shape((1, 4, 7)), "A_adjoint must be the adjoint of A, but"),
        (
            lambda: Physics(WrongShape(3)).observation_shape((1, 4, 7)),
            r"must return the shape \(1, 4, 7\), got \(1, 4, 6\)",
        ),
        (lambda: Physics(Complex(3)).observation_shape((1, 4, 7)), "one real tensor, got torch.complex64"),
    ],
)
def test_nonlinear_physics_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_missing_deepinv_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.delitem(sys.modules, "deepinv.physics", raising=False)
    with pytest.raises(ImportError, match=r'requires deepinv: pip install "dop_lightning\[physics\]"'):
        Physics("deepinv.physics.Blur").make()


# ------------------------------------------------------------------------------------------------------------- deepinv


class TestDeepinvBlur(TestPhysics):
    shape = (3, 8, 9)
    gaussian: ClassVar = {"call": "deepinv.physics.functional.blur.gaussian_blur", "arguments": {"sigma": [0.5, 0.7]}}

    @pytest.fixture(autouse=True)
    def _deepinv(self) -> None:
        pytest.importorskip("deepinv", exc_type=ImportError)

    @property
    def sensing(self) -> Physics:  # type: ignore[override]
        return Physics("deepinv.physics.Blur", {"filter": self.gaussian, "padding": "circular"})


class TestDeepinvDownsampling(TestDeepinvBlur):
    shape = (3, 8, 12)

    @property
    def sensing(self) -> Physics:  # type: ignore[override]
        return Physics("deepinv.physics.Downsampling", {"img_size": list(self.shape), "factor": 2, "filter": "bicubic"})


def test_random_deepinv_measurements() -> None:
    pytest.importorskip("deepinv", exc_type=ImportError)
    sensing = Physics("deepinv.physics.CompressedSensing", {"m": 20, "img_size": [1, 6, 6]})
    assert sensing.observation_shape((1, 6, 6)) == (20,)
    x = draw(1, (1, 6, 6), torch.float32)
    torch.testing.assert_close(sensing.measure(2 * x, 0), 2 * sensing.measure(x, 5))  # the same A for every problem


def test_nonlinear_deepinv_physics_are_refused() -> None:
    pytest.importorskip("deepinv", exc_type=ImportError)
    with pytest.raises(ValueError, match="must be linear, with the methods A and A_adjoint"):
        Physics("deepinv.physics.Haze").make()
