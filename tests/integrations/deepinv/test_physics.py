"""Our measurements as a linear physics of deepinv."""

from typing import Any

import pytest
import torch
from torch import Tensor

deepinv = pytest.importorskip("deepinv", exc_type=ImportError)

from dop_lightning.integrations.deepinv import SensingPhysics  # noqa: E402
from dop_lightning.model.operators import (  # noqa: E402
    BoxBlur,
    Downsampling,
    GaussianBlur,
    GaussianMeasurements,
    MotionBlur,
    Sensing,
)

SIZE = (3, 16, 20)
WAYS = [
    GaussianBlur(1.0),
    BoxBlur(3, "valid"),
    MotionBlur(5, 30, "circular"),
    Downsampling(2),
    GaussianMeasurements(50),
]


def images(count: int, size: tuple[int, ...] = SIZE, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("sensing", WAYS, ids=lambda sensing: sensing.slug)
def test_measurements_equal_those_of_dop_fit(sensing: Sensing) -> None:
    physics, x = SensingPhysics(sensing, SIZE, seed=4), images(2, dtype=torch.float32)
    y = physics(x)
    for mine, image in zip(y, x, strict=True):
        assert torch.equal(mine, sensing.measure(image, seed=4))
    assert tuple(y.shape[1:]) == sensing.observation_shape(SIZE)


@pytest.mark.parametrize("sensing", WAYS, ids=lambda sensing: sensing.slug)
def test_deepinv_finds_it_linear_and_adjoint(sensing: Sensing) -> None:
    physics, x = SensingPhysics(sensing, SIZE), images(2)
    assert abs(float(physics.adjointness_test(x))) < 1e-9 * float(physics.A(x).norm())
    torch.testing.assert_close(physics.A(2 * x), 2 * physics.A(x))


def test_forward_and_adjoint_are_each_others_derivative() -> None:
    physics = SensingPhysics(MotionBlur(5, 30), (1, 6, 7))
    x = images(2, (1, 6, 7)).requires_grad_()
    assert torch.autograd.gradcheck(physics.A, (x,))
    assert torch.autograd.gradgradcheck(physics.A, (x,))
    y = physics.A(images(2, (1, 6, 7))).detach().requires_grad_()
    assert torch.autograd.gradcheck(physics.A_adjoint, (y,))


def test_noise_solvers_and_dtypes_of_deepinv_are_supported() -> None:
    noisy = SensingPhysics(GaussianBlur(0.4), SIZE, noise_model=deepinv.physics.SaltPepperNoise(0.1, 0.1), max_iter=200)
    x = images(2, dtype=torch.float32).clamp(0.2, 0.8)
    y = noisy(x)
    assert set(y[y != noisy.A(x)].tolist()) == {0.0, 1.0}
    torch.testing.assert_close(noisy.A_dagger(noisy.A(x)), x, atol=1e-2, rtol=0)
    assert noisy.A(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SensingPhysics(Downsampling(2), (3, 15, 20)), "multiples of the factor"),
        (
            lambda: SensingPhysics(GaussianBlur(1.0), SIZE).A(images(1, (3, 16, 16))),
            r"x must have the shape \(B, 3, 16, 20\)",
        ),
        (
            lambda: SensingPhysics(BoxBlur(3, "valid"), SIZE).A_adjoint(images(1)),
            r"y must have the shape \(B, 3, 14, 18\)",
        ),
    ],
)
def test_other_sizes_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
