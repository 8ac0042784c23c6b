"""Entries that the user knows to be undamaged, under the methods that use them and those that refuse them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.instant import Interpolation
from dop_lightning.engine.method import Method
from dop_lightning.engine.rivals import DetectAndFill, ExtremeValues, FilterMethod, NormalisedConvolution
from dop_lightning.images.presets import PRESETS
from dop_lightning.images.tiles import cut
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.runs.digests import problem_digest

SIDE = 48


def problem() -> tuple[Problem, Tensor]:
    """An image with outliers and a white row, and the flags of the row and of some outliers."""
    x = torch.linspace(0.3, 0.6, SIDE)
    y = (x[:, None] * torch.ones(SIDE) + 0.1 * torch.sin(torch.arange(SIDE) / 3.0))[None].clone()
    y[0, ::5, ::7] = 1.0
    y[0, 20] = 1.0
    known = torch.zeros(y.shape, dtype=torch.bool)
    known[0, 20], known[0, :11, :20] = True, True
    return Problem("image", y, data_range=1.0), known


def recovered(method: Method | FilterMethod, given: Problem, iterations: int) -> tuple[Tensor, Tensor]:
    state = method.begin(ProblemBatch([given]), 1.0)
    state.advance(1)
    state.advance(iterations - 1)
    probability = state.corruption_probability(0, state.iteration)
    assert probability is not None
    return state.evaluate().signal[0], probability


@pytest.mark.parametrize("preset", ["instant", "quick"])
def test_undamaged_entries_are_unchanged(preset: str) -> None:
    """A row that would be detected as dead, and outliers that would be filled in."""
    given, known = problem()
    method = PRESETS[preset].method(2 if preset == "quick" else None)
    iterations = 125 if preset == "quick" else 1
    if preset == "instant":  # quick: the same, and longer
        signal, probability = recovered(method, given, iterations)
        assert float(probability[0, 20].mean()) > 0.9
        assert float(probability[0, 0, 0]) > 0.9
        assert not torch.equal(signal[known], given.observation[known])
    signal, probability = recovered(method, replace(given, undamaged=known), iterations)
    assert torch.equal(signal[known], given.observation[known])
    assert float(probability[known].max()) == 0
    assert float(probability[0, 40, 42]) > 0.9  # an outlier elsewhere
    assert abs(float(signal[0, 40, 42]) - 0.55) < 0.15


def test_unobserved_entries_are_not_undamaged() -> None:
    given, known = problem()
    mask = torch.ones_like(known)
    mask[0, 5, 7] = False
    signal, _ = recovered(PRESETS["instant"].method(), replace(given, mask=mask, undamaged=known), 1)
    assert 0.2 < float(signal[0, 5, 7]) < 0.7


def test_empty_flags_have_no_effect() -> None:
    given, known = problem()
    nothing = replace(given, undamaged=torch.zeros_like(known))
    for one, two in zip(Interpolation().restored(given), Interpolation().restored(nothing), strict=True):
        assert torch.equal(one, two)


def test_tiles_have_their_part_of_the_flags() -> None:
    given, known = problem()
    mosaic = cut(replace(given, undamaged=known), 32)
    assert mosaic is not None
    tile = mosaic.tiles[1, 1]
    assert tile.part is not None
    assert tile.undamaged is not None
    assert torch.equal(tile.undamaged, known[:, tile.part.rows, tile.part.columns])


def test_flags_are_part_of_the_digest_of_a_problem() -> None:
    given, known = problem()
    digests = {problem_digest(each) for each in (given, replace(given, undamaged=known), replace(given, mask=known))}
    assert len(digests) == 3


def test_other_methods_refuse_undamaged_flags() -> None:
    given, known = problem()
    batch = ProblemBatch([replace(given, undamaged=known)])
    with pytest.raises(ValueError, match="GradientDescent does not use undamaged entries, got 268"):
        PRESETS["paper"].method(2).begin(batch, 1.0)
    with pytest.raises(ValueError, match="DetectAndFill does not use undamaged entries"):
        FilterMethod(DetectAndFill(ExtremeValues(), NormalisedConvolution())).begin(batch)


def test_flags_must_fit() -> None:
    given, known = problem()
    with pytest.raises(ValueError, match=r"image: undamaged must be boolean, got torch\.float32"):
        replace(given, undamaged=known.float())
    with pytest.raises(ValueError, match="image: undamaged must have the shape of the observation"):
        replace(given, undamaged=known[:, 1:])
