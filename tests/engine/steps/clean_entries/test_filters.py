"""Compiled filters agree with plain operations."""

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.blur import blur, gaussian
from dop_lightning.engine.steps.clean_entries.indices import indices
from dop_lightning.engine.steps.clean_entries.medians import window_median
from dop_lightning.foundation.native import library
from dop_lightning.foundation.thread_count import threads_here

needs_compiler = pytest.mark.skipif(library() is None, reason="needs a C++ compiler")

SHAPES = [(1, 40, 16), (3, 64, 50), (2, 7, 33)]


def image(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("missing", [0.0, 0.4, 0.97])
def test_medians_are_the_same_with_and_without_a_compiler(
    shape: tuple[int, ...], missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = image(shape)
    known = torch.rand(shape, generator=torch.Generator().manual_seed(1)) >= missing
    known[0, 0] = known[0, 0] if missing else True
    found = window_median(y, known, 5)
    monkeypatch.setattr("dop_lightning.engine.steps.clean_entries.medians.kernels_for", lambda *_: None)
    assert torch.equal(found, window_median(y, known, 5))


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("border", ["reflect", "replicate"])
@pytest.mark.parametrize("scale", [0.6, 4.0, 32.0])
def test_blur_is_the_same_with_and_without_a_compiler(
    shape: tuple[int, ...], border, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = image(shape)
    line = gaussian(int(3 * scale + 1), scale, like=y)
    found = blur(y, line, border)
    monkeypatch.setattr("dop_lightning.engine.steps.clean_entries.blur.kernels_for", lambda *_: None)
    torch.testing.assert_close(found, blur(y, line, border), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.double(), blur(y.double(), line.double(), border), rtol=0, atol=1e-6)


@needs_compiler
def test_filters_do_not_depend_on_the_number_of_threads() -> None:
    y = image((3, 300, 200))
    found = []
    for threads in (1, 3):
        with threads_here(threads):
            known = y > 0.2
            found.append((window_median(y, known, 5), blur(y, gaussian(13, 4.0, like=y), "reflect")))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_blur_is_differentiable() -> None:
    y = image((1, 20, 24)).requires_grad_()
    blur(y, gaussian(3, 1.0, like=y), "reflect").sum().backward()
    assert y.grad is not None


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 20, 24), torch.float32), ((1, 20, 9), torch.float32), ((1, 20, 24), torch.float64)]
)
def test_median_of_a_window_is_that_of_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    y = image(shape).to(dtype)
    found = window_median(y, torch.ones_like(y, dtype=torch.bool), 5)
    windows = y[0].unfold(0, 5, 1).unfold(1, 5, 1).flatten(2)
    assert torch.equal(found[0, 2:-2, 2:-2], windows.median(dim=-1).values)


def test_indices_are_those_of_nonzero() -> None:
    flags = image((2, 9, 9)) > 0.7
    assert torch.equal(indices(flags), flags.flatten().nonzero()[:, 0])
