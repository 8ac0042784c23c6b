"""Dead lines and scratches are found by the image alone, and what is no damage is left alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import dead_lines, scratches, structured_damage
from dop_lightning.engine.steps.clean_entries.damage import damage_of
from dop_lightning.images.formats import find_images, read_image
from dop_lightning.images.tiles import cut
from dop_lightning.problems.noise import DeadLines, Noise, RandomValuedImpulse, SaltAndPepper, Scratches
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.randomness import stream

UNSEEN = -7.0


def photograph(name: str = "astronaut") -> Tensor:
    """One that comes with the package, 3×128×128."""
    return read_image(find_images([name])[0]).values.clone()


def eight_bits(noise: Noise, image: Tensor, seed: int = 0) -> Tensor:
    return (noise.corrupt(image, stream(seed, "corruption")).observation * 255).round() / 255


def f1(found: Tensor, support: Tensor) -> float:
    return 2 * float((found & support).sum()) / float(found.sum() + support.sum())


@pytest.mark.parametrize("impulses", [0.0, 0.3])
@pytest.mark.parametrize("value", [0.0, 0.5, "random", "noise"])
def test_dead_lines_are_found(value: Any, impulses: float) -> None:
    image = photograph()
    support = DeadLines(0.02, UNSEEN).corrupt(image, stream(0, "corruption")).observation == UNSEEN
    y = eight_bits(DeadLines(0.02, value), image)
    found = dead_lines(eight_bits(SaltAndPepper(impulses), y, seed=1) if impulses else y)
    assert f1(found, support) > (0.9 if value == "noise" and impulses else 0.95)


def test_a_line_may_be_dead_in_one_channel() -> None:
    y = photograph()
    y[1, 70] = 0.9
    found = dead_lines(y)
    assert bool(found[1, 70].all())
    assert int(found.sum()) == y.shape[2]


def test_adjacent_lines_and_those_of_a_part_that_is_observed() -> None:
    y = photograph()
    y[:, 50:53] = torch.tensor([0.1, 0.9, 0.4])[:, None]
    y[:, :, 100] = 1.0
    observed = torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    found = dead_lines(torch.where(observed, y, 0), observed=observed)
    assert found.all(dim=0).all(dim=1).nonzero().flatten().tolist() == [50, 51, 52]
    assert found.all(dim=0).all(dim=0).nonzero().flatten().tolist() == [100]


@pytest.mark.parametrize("place", [0, -1])
def test_edge_of_the_picture_is_not_damage(place: int) -> None:
    y = photograph()
    y[:, place] = 1.0
    y[:, :, place] = 0.0
    assert not dead_lines(y).any()


def table(side: int = 96) -> Tensor:
    """Rules from edge to edge, and letters of random dots between them."""
    dots = torch.rand(1, side, side, generator=torch.Generator().manual_seed(0)) < 0.25
    page = torch.where(dots, 0.1, 1.0)
    page[:, ::12], page[:, :, ::31] = 0.0, 0.0
    return page


def panes(side: int = 96) -> Tensor:
    """A window frame before a wall of stripes, exactly drawn."""
    page = ((torch.arange(side) // 7 * 37 % 200) / 255).expand(1, side, side).clone()
    page[:, 30:32], page[:, :, 64] = 0.98, 0.98
    return page


def noise(side: int = 96) -> Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [table, panes, noise, photograph, lambda: photograph("camera"), lambda: 0 * noise()])
def test_undamaged_structures_are_not_masked(make: Any) -> None:
    assert not structured_damage(make(), "auto").any()


@pytest.mark.parametrize("noise", [SaltAndPepper, RandomValuedImpulse])
@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "coffee", "rocket"])
def test_impulses_are_not_lines(name: str, noise: type[SaltAndPepper] | type[RandomValuedImpulse]) -> None:
    for ratio in (0.3, 0.5, 0.7):
        for seed in range(3):
            assert not dead_lines(eight_bits(noise(ratio), photograph(name), seed)).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_scratches_are_found(value: float) -> None:
    image = photograph()
    support = Scratches(0.04, UNSEEN).corrupt(image, stream(1, "corruption")).observation == UNSEEN
    assert f1(scratches(eight_bits(Scratches(0.04, value), image, seed=1)), support) > 0.75


def test_points_skip_the_search_and_vectors_have_no_lines() -> None:
    y = photograph()
    y[:, 70] = 1.0
    assert not structured_damage(y, "points").any()
    assert structured_damage(y, "lines").any()
    assert not structured_damage(torch.ones(40), "scratches").any()


def test_tile_uses_the_damage_of_the_whole_image() -> None:
    y = photograph()
    clean = cut(Problem("clean", y.clone(), data_range=1.0), 80)
    assert clean is not None
    assert not damage_of(clean.tiles[1, 0], "lines").any()
    y[:, clean.grid.tops[1]] = 1.0  # the first row of a tile, inside the picture
    mosaic = cut(Problem("p", y, data_range=1.0), 80)
    assert mosaic is not None
    assert bool(damage_of(mosaic.tiles[1, 0], "lines")[:, 0].all())


def test_auto_suggests_scratches_once_and_not_for_a_clean_photograph(recwarn: pytest.WarningsRecorder) -> None:
    image = photograph()
    damage_of(Problem("clean", image, data_range=1.0), "auto")
    assert not recwarn
    y = Problem("scratched", eight_bits(Scratches(0.04, 1.0), image, seed=1), data_range=1.0)
    with pytest.warns(UserWarning, match=r"scratched probably has scratches\. Pass --damage scratches "):
        damage_of(y, "auto")
