"""Flat border lines."""

import pytest
import torch

from dop_lightning import recover_image
from dop_lightning.engine.steps.clean_entries import flat_border
from dop_lightning.engine.steps.clean_entries.border import border_of
from dop_lightning.images.tiles import cut
from dop_lightning.problems.problem import Problem


def shades(side: int) -> torch.Tensor:
    x = torch.linspace(0, 3, side)
    return torch.stack([0.5 + 0.4 * torch.sin(x[None] + k) * torch.cos(x[:, None] + 0.3 * x) for k in (1, 2, 3)])


def impulses(image: torch.Tensor, share: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    hit = torch.rand(image.shape, generator=generator) < share
    return torch.where(hit, (torch.rand(image.shape, generator=generator) < 0.5).float(), image)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("line", [(1, slice(None), 0), (1, slice(None), -1), (1, 0), (1, -1)])
def test_a_black_line_is_found_under_impulses(line: tuple[int | slice, ...], share: float) -> None:
    image = shades(160)
    image[line] = 0
    found = flat_border(impulses(image, share))
    assert bool((found[line] == 0).all())
    assert int(found.isfinite().sum()) == 160


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7])
def test_no_line_if_the_border_is_like_the_rest(share: float) -> None:
    assert bool(flat_border(impulses(shades(160), share)).isnan().all())
    black = shades(160)
    black[:, :8] = 0  # a frame, of which the picture has more
    assert bool(flat_border(impulses(black, share))[:, 0].isnan().all())


def test_dashes_and_short_lines_are_not_damage() -> None:
    dashed = shades(160)
    dashed[:, 0] = (torch.arange(160) % 12 < 4).float()
    assert bool(flat_border(dashed).isnan().all())
    short = shades(40)
    short[:, 0] = impulses(torch.zeros(3, 40), 0.3)
    assert bool(flat_border(short).isnan().all())


def test_unobserved_entries_do_not_count() -> None:
    image = shades(160)
    image[0, :, 0] = 0
    y = impulses(image, 0.3)
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[0, 100:, 0] = False
    assert bool((flat_border(y.masked_fill(~observed, 0.5), 1.0, observed)[0, :, 0] == 0).all())
    observed[0, 40:, 0] = False
    assert bool(flat_border(y, 1.0, observed).isnan().all())


def test_the_line_is_recovered_to_the_bit_and_its_impulses_are_reported() -> None:
    image = shades(64)
    image[1, :, 0] = 0
    y = impulses(image, 0.4)
    found = recover_image(y.permute(1, 2, 0).numpy(), width=4, iterations=200, device="cpu", progress=False)
    assert not found.image[:, 0, 1].any()
    assert found.corruption_probability is None or bool(
        ((found.corruption_probability[:, 0, 1] > 0.5) == (y[1, :, 0] != 0).numpy()).all()
    )


def test_tiles_have_the_lines_of_the_whole() -> None:
    image = shades(160)
    image[1, :, 0], image[2, -1], image[0, :, -1], image[0, 0] = 0, 1, 1, 0
    whole = Problem("whole", impulses(image, 0.3), data_range=1.0)
    expected = border_of(whole, "auto")
    assert bool(expected.isfinite().any())
    mosaic = cut(whole, 64)
    assert mosaic is not None
    for place, tile in mosaic.tiles.items():
        found = border_of(tile, "auto")
        assert torch.equal(found.nan_to_num(7), expected[..., *mosaic.grid.window(*place)].nan_to_num(7))
