"""Blurs of every kernel and boundary, by the suite of all operators and against scipy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from dop_lightning.model.operators import (
    Blur,
    Blurring,
    BoxBlur,
    Convolution,
    GaussianBlur,
    Masked,
    MotionBlur,
    Operator,
    operator_of,
)
from dop_lightning.model.operators.boundary import pad, unpad
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.model.operators.builders import measured
from tests.suites.operator import OperatorSuite
from tests.suites.part import draw

ROWS = [[0.0, 1.0, 2.0, 0.0, 0.5], [3.0, -1.0, 0.0, 1.0, 0.0], [0.0, 0.5, 4.0, 1.0, 0.25]]
"""Neither symmetric nor an outer product nor square."""

SCIPY = {"reflect": "mirror", "circular": "wrap"}


class TestBlur(OperatorSuite):
    sensing: Blurring = Blur(ROWS)
    shape: tuple[int, ...] = (2, 7, 6)

    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        return measured(self.sensing, self.shape, seed, name, dtype)

    def make(self, problems: ProblemBatch) -> Operator:
        return operator_of(problems)

    def test_value(self) -> None:
        problems = self.problems(2)
        X = self.signals(problems)
        taps = self.sensing.kernel_taps()[None].numpy()
        mode = SCIPY.get(self.sensing.boundary, "constant")
        for x, y in zip(X, self.make(problems)(X), strict=True):
            expected = ndimage.convolve(x.numpy(), taps, mode=mode)
            if self.sensing.boundary == "valid":
                rows, columns = (side // 2 for side in taps.shape[1:])
                expected = expected[:, rows : x.shape[1] - rows, columns : x.shape[2] - columns]
            torch.testing.assert_close(y, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)

    def test_constants_are_preserved(self) -> None:
        problems = self.problems(1)
        y = self.make(problems)(torch.full((1, *self.shape), 0.7, dtype=torch.float64))
        torch.testing.assert_close(y, torch.full_like(y, 0.7))

    def test_shapes_are_inverse_of_each_other(self) -> None:
        assert self.sensing.signal_shape(self.sensing.observation_shape(self.shape)) == self.shape

    def test_operator_moves_to_other_devices_and_types(self) -> None:
        problems = self.problems(1)
        A = self.make(problems).to("meta")
        y = A(torch.zeros(1, *self.shape, dtype=torch.float64, device="meta"))
        assert y.shape == problems.observation.shape
        assert A.adjoint(y).shape == (1, *self.shape)


class TestBlurAroundTheTorus(TestBlur):
    sensing = Blur(ROWS, "circular")


class TestBlurOfWhatIsInside(TestBlur):
    sensing = Blur(ROWS, "valid")


class TestGaussianBlur(TestBlur):
    sensing = GaussianBlur(0.9)
    shape = (3, 8, 5)


class TestBoxBlurAsLargeAsTheImage(TestBlur):
    sensing = BoxBlur(5, "circular")
    shape = (1, 2, 3)


class TestMotionBlur(TestBlur):
    sensing = MotionBlur(6.5, 30, "valid")
    shape = (1, 6, 9)


class TestMaskedBlur(TestGaussianBlur):
    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        whole = super().problem(seed, name, dtype)
        mask = draw(seed + 77, whole.observation.shape) > -0.3
        return Problem(name, whole.observation, None, None, mask, seed, whole.signal_shape, sensing=self.sensing)

    def test_value(self) -> None:
        problems = self.problems(2)
        A, X = self.make(problems), self.signals(problems)
        assert isinstance(A, Masked)
        assert problems.mask is not None
        torch.testing.assert_close(A(X), problems.mask * self.sensing.operator(problems)(X))

    def test_constants_are_preserved(self) -> None:
        """Not where nothing was observed."""


# ------------------------------------------------------------------------------------------------------------- margins


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
@pytest.mark.parametrize("margins", [(0, 0), (3, 0), (0, 4), (3, 4), (1, 2)])
def test_unpad_is_the_transpose_of_pad(boundary: Any, margins: tuple[int, int]) -> None:
    images = draw(1, (2, 1, 4, 5))
    padded = pad(images, margins, boundary)
    r = draw(2, padded.shape)
    before = r.clone()
    torch.testing.assert_close((padded * r).sum(), (images * unpad(r, margins, boundary)).sum())
    assert torch.equal(r, before)


# ------------------------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize("sensing", [Blur(ROWS), GaussianBlur(0.3), GaussianBlur(2.5), BoxBlur(1), MotionBlur(9, 77)])
def test_kernels_have_odd_sides_and_the_sum_1(sensing: Blurring) -> None:
    taps = sensing.kernel_taps()
    assert taps.sum().item() == pytest.approx(1)
    assert all(side % 2 for side in taps.shape)


def test_a_gaussian_has_its_standard_deviation() -> None:
    taps = GaussianBlur(2.0).kernel_taps()
    assert taps.shape == (17, 17)
    t = torch.arange(-8.0, 9.0, dtype=torch.float64)
    assert (taps.sum(0) * t**2).sum().sqrt().item() == pytest.approx(2.0, rel=2e-3)


@pytest.mark.parametrize(
    ("length", "angle", "expected"),
    [
        (1, 33, [[1.0]]),
        (5, 0, [[0.2] * 5]),
        (3, 90, [[1 / 3]] * 3),
        (2, 180, [[0.25, 0.5, 0.25]]),
        (3 * 2**0.5, 45, [[0, 0, 1 / 3], [0, 1 / 3, 0], [1 / 3, 0, 0]]),
        (3 * 2**0.5, -45, [[1 / 3, 0, 0], [0, 1 / 3, 0], [0, 0, 1 / 3]]),
    ],
)
def test_motion_blur_weights_pixels_by_path_length(length: float, angle: float, expected: Any) -> None:
    taps = MotionBlur(length, angle).kernel_taps()
    torch.testing.assert_close(taps, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


def test_motion_blur_has_the_given_length_and_angle() -> None:
    taps = MotionBlur(40, 25).kernel_taps()
    rows, columns = torch.nonzero(taps, as_tuple=True)
    weights = taps[rows, columns]
    up, right = -(rows - taps.shape[0] // 2).double(), (columns - taps.shape[1] // 2).double()
    xx, xy, yy = (float((weights * a * b).sum()) for a, b in ((right, right), (right, up), (up, up)))
    assert math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) == pytest.approx(25, abs=0.5)
    assert xx + yy == pytest.approx(40**2 / 12, rel=0.01)


def test_kernels_of_files(tmp_path: Path) -> None:
    levels = np.array([[0, 50, 0], [10, 200, 0], [0, 40, 0]], dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "k.png")
    Image.fromarray(np.stack([levels] * 3, axis=2)).save(tmp_path / "rgb.png")
    np.save(tmp_path / "k.npy", levels / 7.0)
    files = [Blur(str(tmp_path / name)) for name in ("k.png", "rgb.png", "k.npy")]
    for blur in files:
        torch.testing.assert_close(blur.kernel_taps(), torch.from_numpy(levels / 300.0))
    assert files[0] == files[1] == Blur(levels.tolist())
    assert hash(files[0]) == hash(files[1])
    assert files[0].slug == f"blur-3x3-{files[0].digest}"
    assert str(tmp_path) not in repr(files[0])  # what names a run does not depend on folders
    other = Blur([[0, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert other != files[0]
    assert other.digest != files[0].digest


# -------------------------------------------------------------------------------------------------------- descriptions


@pytest.mark.parametrize(
    ("sensing", "slug", "attributes"),
    [
        (GaussianBlur(1.5), "gaussian-blur-1.5", {"sensing": "gaussian_blur", "blur_std": 1.5, "boundary": "reflect"}),
        (BoxBlur(3, "valid"), "box-blur-3-valid", {"sensing": "box_blur", "blur_width": 3, "boundary": "valid"}),
        (
            MotionBlur(9, 45),
            "motion-blur-9-45",
            {"sensing": "motion_blur", "blur_length": 9, "blur_angle": 45, "boundary": "reflect"},
        ),
    ],
)
def test_descriptions(sensing: Blurring, slug: str, attributes: dict[str, Any]) -> None:
    assert (sensing.slug, sensing.attributes) == (slug, attributes)
    x = draw(3, (3, 12, 12))
    assert torch.equal(sensing.measure(x, 0), operator_of(ProblemBatch([measured(sensing, x.shape)]))(x[None])[0])
    assert sensing.measure(x.float(), 0).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianBlur(0), "std must be a finite number above 0, got 0"),
        (lambda: GaussianBlur(1, "zeros"), "boundary must be one of reflect, circular, valid, got 'zeros'"),
        (lambda: BoxBlur(4), "width must be odd, got 4"),
        (lambda: BoxBlur(0), "width must be a whole number of at least 1, got 0"),
        (lambda: MotionBlur(0.5), "length must be at least 1 pixel, got 0.5"),
        (lambda: MotionBlur(5, float("inf")), "angle must be finite, got inf"),
        (lambda: Blur([[1, 1]]), r"kernel must be an h×w array with odd h and w.*got shape \(1, 2\)"),
        (lambda: Blur([[1, 1, 1], [1]]), "kernel must be a list of rows of equal length"),
        (lambda: Blur([[1, float("nan"), 1]]), "kernel must be finite, got 1 non-finite entries"),
        (lambda: Blur([[1, -2, 1]]), r"kernel must have a sum above 0, got 0\.0"),
        (lambda: Blur([[1]], "edge"), "boundary must be one of"),
    ],
)
def test_arguments_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_invalid_kernel_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        Blur(str(tmp_path / "none.png"))
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png: must be a PNG"):
        Blur(str(tmp_path / "text.png"))
    Image.fromarray(np.zeros((3, 4), dtype=np.uint8)).save(tmp_path / "even.png")
    with pytest.raises(ValueError, match=r"even\.png must be an h×w array with odd h and w"):
        Blur(str(tmp_path / "even.png"))


@pytest.mark.parametrize(
    ("sensing", "shape", "least"),
    [
        (BoxBlur(9), (1, 4, 9), "5×5"),
        (BoxBlur(9, "circular"), (1, 9, 3), "4×4"),
        (BoxBlur(9, "valid"), (1, 8, 9), "9×9"),
    ],
)
def test_images_must_be_large_enough(sensing: Blurring, shape: tuple[int, ...], least: str) -> None:
    with pytest.raises(ValueError, match=f"9×9 with the boundary .* requires signals of at least {least} pixels"):
        sensing.observation_shape(shape)


def test_images_are_required() -> None:
    with pytest.raises(ValueError, match=r"a convolution requires images, C×H×W, got a signal of shape \(8, 8\)"):
        GaussianBlur(1).observation_shape((8, 8))
    problems = ProblemBatch([Problem("a", torch.zeros(1, 9, 9))])
    with pytest.raises(ValueError, match=r"Convolution requires observations of shape \(1, 7, 7\), got \(1, 9, 9\)"):
        Convolution(problems, torch.ones(3, 3) / 9, "valid")
