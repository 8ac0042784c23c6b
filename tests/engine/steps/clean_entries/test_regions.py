"""Easy tiles of regions: one support for many tiles, whichever thread needs it first."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import regions as module
from dop_lightning.engine.steps.clean_entries.regions import EasyTile, easy_tile
from dop_lightning.images import tiles
from dop_lightning.images.recover import recover_image
from dop_lightning.images.tiles import Mosaic, cut
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.problem import Problem


def picture(height: int = 160, width: int = 288) -> Tensor:
    """Shades with grain, in colour."""
    x, y = torch.linspace(0, 3, width), torch.linspace(0, 2, height)[:, None]
    grain = torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))
    return 0.4 + 0.2 * torch.sin(x + y) + 0.01 * grain


def hot(truth: Tensor, share: float = 0.005) -> Tensor:
    at = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < share
    return torch.where(at, 1.0, truth)


def mosaic_of(observation: Tensor, **settings: Any) -> Mosaic:
    found = cut(Problem("photo", observation, data_range=1.0, **settings), 64)
    assert found is not None
    return found


def do_nothing() -> None:
    return


def easy(tile: Problem, poll: Callable[[], None] = do_nothing) -> EasyTile | None:
    return easy_tile(tile, tile.observation, 0.99, "auto", "auto", "auto", poll)


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small regions, and the positions of those that are examined."""
    monkeypatch.setattr(tiles, "REGION", 176)
    found: list[int] = []
    examine = module._examine

    def listed(part: Any, k: int, *rest: Any) -> Any:
        found.append(k)
        return examine(part, k, *rest)

    monkeypatch.setattr(module, "_examine", listed)
    return found


def test_easy_tiles_are_restored_by_the_support_of_their_region(examined: list[int]) -> None:
    truth = picture()
    mosaic = mosaic_of(hot(truth))
    for place, tile in mosaic.tiles.items():
        found = easy(tile)
        assert found is not None
        window = (..., *mosaic.grid.window(*place))
        assert torch.equal(found.clean < 0.5, hot(truth)[window] != truth[window])
        restored = torch.where(found.clean > 0.99, tile.observation, found.estimate)
        assert float(psnr(restored[None], truth[window][None], 1.0)) > 45
        assert found.dense < 0.03
        assert not found.joint
    assert examined == list(range(6))  # each once, row by row


def test_results_do_not_depend_on_order_and_threads(examined: list[int]) -> None:
    in_order = [easy(tile) for tile in mosaic_of(hot(picture())).tiles.values()]
    del examined[:]
    reversed_ = [easy(tile) for tile in reversed(mosaic_of(hot(picture())).tiles.values())][::-1]
    assert sorted(set(examined)) == list(range(6))
    del examined[:]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(easy, mosaic_of(hot(picture())).tiles.values()))
    assert sorted(examined) == list(range(6))
    for one, *others in zip(in_order, reversed_, together, strict=True):
        assert one is not None
        for other in others:
            assert other is not None
            assert torch.equal(one.clean, other.clean)
            assert torch.equal(one.estimate, other.estimate)


def test_a_waiting_thread_examines_the_next_region(examined: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    begun, examine = threading.Barrier(2, timeout=60), module._examine

    def together(part: Any, k: int, *rest: Any) -> Any:
        if k < 2:
            begun.wait()  # only if two threads are here at the same time
        return examine(part, k, *rest)

    monkeypatch.setattr(module, "_examine", together)
    first, second = list(mosaic_of(hot(picture())).tiles.values())[:2]
    with ThreadPoolExecutor(2) as pool:
        assert all(found is not None for found in pool.map(easy, (first, second)))
    assert sorted(examined) == [0, 1]


def test_an_interrupted_region_is_examined_again(examined: list[int]) -> None:
    tile = mosaic_of(hot(picture())).tiles[0, 0]

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        easy(tile, interrupted)
    assert easy(tile) is not None
    assert examined == [0, 0]


@pytest.mark.parametrize(
    ("observation", "settings", "looks"),
    [
        (hot(picture(), 0.3), {}, True),
        (picture(), {}, True),
        (hot(picture()), {"mask": torch.rand(3, 160, 288) < 0.9}, False),
        (hot(picture()), {"noise": 0.01}, False),
    ],
)
def test_other_tiles_are_examined_one_by_one(
    observation: Tensor, settings: dict[str, Any], looks: bool, examined: list[int]
) -> None:
    assert easy(mosaic_of(observation, **settings).tiles[0, 0]) is None
    assert examined == ([0] if looks else [])


@pytest.mark.parametrize("channels", [slice(None), slice(1, 2)])
def test_a_dead_line_is_not_easy(channels: slice) -> None:
    observation = hot(picture())
    observation[channels, :, 30] = 0
    mosaic = mosaic_of(observation)
    assert easy(mosaic.tiles[0, 0]) is None
    assert easy(mosaic.tiles[0, 3]) is not None


def test_images_and_parts_without_regions_have_no_easy_tiles() -> None:
    observation = hot(picture())
    assert easy(Problem("photo", observation, data_range=1.0)) is None
    part = Problem("photo", observation, data_range=1.0).window(slice(0, 64), slice(0, 64), name="part")
    assert easy(part) is None


def test_regions_are_examined_once_by_many_threads(examined: list[int]) -> None:
    """With one region per row, threads are rows ahead."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(easy, mosaic_of(hot(picture(640, 96))).tiles.values()))
    assert all(found)
    assert sorted(examined) == sorted(set(examined))


def test_a_region_of_an_interrupted_thread_is_examined_again(examined: list[int]) -> None:
    regions = module._Regions()
    regions._begun[0] = threading.get_ident()  # the interruption came before it could be removed
    windows = ((slice(0, 8), slice(0, 8)),)
    assert regions.of(0, windows, lambda k: None, do_nothing) is None
    assert not regions._begun


@pytest.mark.parametrize("dense", ["auto", "keep"])
def test_recovery_needs_no_network(examined: list[int], dense: Any) -> None:
    truth = picture()
    found = recover_image(
        hot(truth).numpy(), preset="quick", width=4, tile=64, dense=dense, value_range=(0, 1), progress=False
    )
    assert found.iterations == 1
    assert sorted(set(examined)) == list(range(6))
    assert float(psnr(torch.from_numpy(found.image)[None], truth[None], 1.0)) > 50


def test_dense_noise_is_removed_by_the_network(examined: list[int]) -> None:
    found = recover_image(
        hot(picture(64, 128)).numpy(),
        preset="quick",
        width=4,
        tile=64,
        iterations=2,
        dense="remove",
        value_range=(0, 1),
        progress=False,
    )
    assert found.iterations == 2
