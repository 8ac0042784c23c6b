"""Scratches of one value or one opacity are found as paths; curves of a picture are not."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import scratches
from dop_lightning.engine.steps.clean_entries.exact_scratches import _spans, exact_scratches
from dop_lightning.engine.steps.clean_entries.likely_scratches import likely_half_transparent, likely_opaque
from dop_lightning.engine.steps.clean_entries.run_chains import chain_lengths
from dop_lightning.engine.steps.clean_entries.run_paths import best_paths, run_gains
from dop_lightning.images.formats import find_images, read_image
from dop_lightning.problems.noise import Scratches
from dop_lightning.problems.randomness import stream

UNSEEN = -7.0


def scratched(name: str, value: float, opacity: float) -> tuple[Tensor, Tensor]:
    """A photograph of 128×128 pixels that comes with the package, with 4 % scratches, and their support."""
    image = read_image(find_images([name])[0]).values
    support = Scratches(0.04, UNSEEN).corrupt(image, stream(1, "corruption")).observation[0] == UNSEEN
    y = Scratches(0.04, value, opacity).corrupt(image, stream(1, "corruption")).observation
    return (y * 255).round() / 255, support


def everywhere(y: Tensor) -> Tensor:
    return torch.ones_like(y[0], dtype=torch.bool)


def f1(found: Tensor, support: Tensor) -> float:
    return 2 * float((found & support).sum()) / float(found.sum() + support.sum())


@pytest.mark.parametrize("name", ["astronaut", "chelsea"])
@pytest.mark.parametrize(("value", "opacity"), [(0.0, 0.5), (1.0, 0.5), (1.0, 0.8), (0.5, 1.0)])
def test_scratches_across_texture_are_found(name: str, value: float, opacity: float) -> None:
    y, support = scratched(name, value, opacity)
    assert f1(exact_scratches(y, everywhere(y)), support) > 0.7


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_photographs_have_no_exact_scratches(name: str) -> None:
    y = read_image(find_images([name])[0]).values
    assert not exact_scratches(y, everywhere(y)).any()


def test_opacity_and_value_are_estimated() -> None:
    y, _ = scratched("astronaut", 1.0, 0.5)
    bright = [model for model in likely_half_transparent([(y, everywhere(y))]) if model.value == 1]
    assert bright[0].opacity == pytest.approx(0.5, abs=0.01)
    y, _ = scratched("astronaut", 0.4, 1.0)
    assert likely_opaque([(y, everywhere(y))])[0].value.tolist() == pytest.approx([0.4] * 3, abs=0.01)


def test_unobserved_pixels_are_no_evidence_and_no_scratch() -> None:
    y, support = scratched("chelsea", 1.0, 0.5)
    observed = (torch.rand(y.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.99).expand_as(y)
    found = scratches(torch.where(observed, y, 0.0), observed=observed)
    assert not (found & ~observed).any()
    assert f1(found[0], support) > 0.6


def test_result_follows_a_transposition() -> None:
    y, _ = scratched("chelsea", 1.0, 0.5)
    assert torch.equal(exact_scratches(y.transpose(1, 2), everywhere(y).T), exact_scratches(y, everywhere(y)).T)


def test_path_bridges_a_gap_and_ends_where_evidence_ends() -> None:
    gain = run_gains(*torch.full((4, 60, 30), -2.0))
    for row in range(10, 50):
        gain[1, row, 20 - row // 5] = 5.0
    gain[:, 25:28] = -4.0
    (path,) = best_paths(gain)
    assert sorted(path.rows.tolist()) == list(range(10, 50))
    assert set(path.lengths.tolist()) == {2}
    assert path.score == pytest.approx(37 * 5 - 3 * 4)


def test_paths_cross() -> None:
    gain = run_gains(*torch.full((4, 80, 100), -2.0))
    for row in range(80):
        gain[0, row, 10 + row] = gain[0, row, 89 - row] = 4.0
    paths = best_paths(gain)
    found = torch.zeros(80, 100, dtype=torch.bool)
    for path in paths:
        path.paint(found)
    assert int(found.sum()) == 2 * 80


def test_chain_ends_at_another_value_and_at_a_change_of_side() -> None:
    field = torch.full((1, 1, 6, 7), 9.0)
    for row, column in enumerate([3, 4, 5, 4, 4, 4]):
        field[..., row, column] = 1.0
    field[..., 5, 4] = 3.0
    lengths = chain_lengths(field, field[0] < 9, 0.5)
    assert [int(lengths[0, row].max()) for row in range(6)] == [1, 2, 3, 2, 3, 1]


@pytest.mark.parametrize("size", [1, 100, 1024, 1025, 3000])
def test_tiles_cover_a_side(size: int) -> None:
    spans = _spans(size)
    assert spans[0].start == 0
    assert spans[-1].stop == size
    assert all(after.start < before.stop for before, after in pairwise(spans))


def test_unusual_images_have_no_scratches() -> None:
    for y in (torch.zeros(1, 30, 30), torch.rand(3, 40, 25, generator=torch.Generator().manual_seed(0))):
        assert not exact_scratches(y, everywhere(y)).any()
        assert not exact_scratches(y, ~everywhere(y)).any()


@pytest.mark.parametrize(("factor", "offset"), [(255.0, 0.0), (2.0, -1.0)])
def test_scale_and_offset_do_not_matter(factor: float, offset: float) -> None:
    y, support = scratched("chelsea", 1.0, 0.5)
    assert f1(scratches(factor * y + offset, factor)[0], support) > 0.7
