"""The recovery of an image, blended from those of its tiles."""

from dataclasses import replace

import pytest
import torch

from dop_lightning.engine.outcome import Outcome
from dop_lightning.images.mosaics import combine
from dop_lightning.images.tiles import Mosaic, cut
from dop_lightning.problems.problem import Problem

Outcomes = dict[tuple[int, int], Outcome]


@pytest.fixture
def mosaic() -> Mosaic:
    """An image whose right tile begins where nothing was observed."""
    mask = torch.ones(1, 16, 28, dtype=torch.bool)
    mask[..., 20:24] = False
    y = torch.rand(1, 16, 28, generator=torch.Generator().manual_seed(0))
    found = cut(Problem("image", y, mask=mask, data_range=1.0), 16, 4)
    assert found is not None
    return found


def of_tiles(mosaic: Mosaic, probability: torch.Tensor) -> Outcomes:
    """What tiles have recovered, which agree with each other."""
    outcomes = {}
    for place, tile in mosaic.tiles.items():
        window = mosaic.grid.window(*place)
        y = tile.observation
        outcomes[place] = Outcome(tile, "done", 9, 1.0, 1.0, 1.0, y, torch.zeros_like(y))
        outcomes[place] = replace(outcomes[place], corruption_probability=probability[:, *window])
    return outcomes


def test_the_probability_is_blended(mosaic: Mosaic) -> None:
    truth = torch.rand(1, 16, 28, generator=torch.Generator().manual_seed(1))
    whole = combine(mosaic, of_tiles(mosaic, truth)).corruption_probability
    assert whole is not None
    assert mosaic.whole.mask is not None
    torch.testing.assert_close(whole, truth * mosaic.whole.mask)
    certain = combine(mosaic, of_tiles(mosaic, torch.ones_like(truth))).corruption_probability
    assert certain is not None
    assert float(certain.max()) <= 1


def test_probability_is_interpolated_between_tiles(mosaic: Mosaic) -> None:
    outcomes = of_tiles(mosaic, torch.zeros(1, 16, 28))
    right = max(outcomes)
    outcomes[right] = replace(outcomes[right], corruption_probability=torch.ones(1, 16, 16))
    whole = combine(mosaic, outcomes).corruption_probability
    assert whole is not None
    row = whole[0, 0, :20]
    assert bool((row[:12] == 0).all())
    assert bool((row[16:] == 1).all())
    assert bool((row.diff() >= 0).all())
    assert 0 < float(row[13]) < 1


def test_missing_probability_of_a_tile_leaves_the_image_without(mosaic: Mosaic) -> None:
    outcomes = of_tiles(mosaic, torch.zeros(1, 16, 28))
    outcomes[0, 0] = replace(outcomes[0, 0], corruption_probability=None)
    assert combine(mosaic, outcomes).corruption_probability is None
