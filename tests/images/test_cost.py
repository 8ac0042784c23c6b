"""Estimates of memory, and the tiles that follow."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dop_lightning.foundation.thread_count import threads_here
from dop_lightning.foundation.units import parse_bytes
from dop_lightning.images.cost import TILES, RecoveryCost, choose_tile, run_memory
from dop_lightning.images.presets import PRESETS
from dop_lightning.model.signals.unet import kernels

GIB = 2**30
LARGE = (3, 1000, 1500)


class TestRunMemory:
    def test_memory_grows_with_pixels_width_and_precision(self) -> None:
        base = run_memory([(3, 256, 256)], 64, bf16=False)
        assert run_memory([(3, 512, 512)], 64, bf16=False) > base
        assert run_memory([(3, 256, 256)], 128, bf16=False) > base
        assert run_memory([(3, 256, 256)], 64, bf16=True) < base

    def test_smaller_tiles_need_less_memory(self) -> None:
        needs = [run_memory([LARGE], 64, bf16=False, tile=tile) for tile in (None, *TILES)]
        assert needs[0] > 2 * needs[1]
        assert needs[1:5] == sorted(needs[1:5], reverse=True)

    def test_all_images_are_counted_and_one_iterates_at_a_time(self) -> None:
        one = run_memory([(3, 256, 256)], 64, bf16=False)
        two = run_memory([(3, 256, 256)] * 2, 64, bf16=False)
        assert one < two < 2 * one

    def test_tile_larger_than_the_image_has_no_effect(self) -> None:
        assert run_memory([(1, 37, 51)], 64, bf16=False, tile=64) == run_memory([(1, 37, 51)], 64, bf16=False)


class TestChooseTile:
    def test_images_that_fit_are_not_tiled(self) -> None:
        assert choose_tile([LARGE], 32, False, 64 * GIB) is None

    @pytest.mark.parametrize("limit", [2.4, 2.7, 3, 5, 8])
    def test_largest_tile_that_fits_is_chosen(self, limit: float) -> None:
        tile = choose_tile([LARGE, (1, 64, 64)], 64, False, round(limit * GIB))
        assert tile in TILES
        assert run_memory([LARGE, (1, 64, 64)], 64, False, tile) <= limit * GIB
        larger = [t for t in TILES if t > tile]
        assert all(run_memory([LARGE, (1, 64, 64)], 64, False, t) > limit * GIB for t in larger)

    def test_a_limit_below_the_smallest_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"max-memory must be at least .* width 64, got 100 MiB"):
            choose_tile([LARGE], 64, False, 100 * 2**20)


@pytest.mark.parametrize(
    ("sizes", "tile"),
    [
        ([(200, 1000)], (200, 192)),
        ([(200, 1000)] * 2, (200, 192)),
        ([(20, 2000), (1000, 1000)], 192),
        ([(240, 1000), (1000, 240)], 192),
        ([(375, 375), (240, 340)], 192),
        ([(256, 256), (200, 200)], 192),
        ([(200, 200), (100, 100)], None),
    ],
)
def test_images_of_different_sizes_get_square_tiles(sizes: list[tuple[int, int]], tile: object) -> None:
    cost = RecoveryCost([(3, h, w) for h, w in sizes], 32, PRESETS["default"], "fp32", torch.device("cpu"))
    assert cost.choose_tile(64 * GIB) == tile


def test_filter_needs_less_memory_than_a_network() -> None:
    photograph = (3, 3000, 4000)
    needs = [run_memory([photograph], width, False, 512) for width in (0, 8)]
    assert needs[0] < needs[1]
    assert run_memory([photograph], 0, False, 256) < needs[0] < run_memory([photograph], 0, False)
    assert choose_tile([photograph], 0, False, 4 * GIB) == 512


def test_suggested_amount_of_memory_suffices() -> None:
    for width in (8, 32, 64, 128):
        for shape in ((3, 1000, 1500), (1, 3000, 1500)):
            with pytest.raises(ValueError, match="max-memory must be at least") as refused:
                choose_tile([shape], width, False, 2**20)
            advised = re.search(r"at least (\S+) ", str(refused.value))
            assert advised is not None
            assert choose_tile([shape], width, False, parse_bytes(advised[1])) in TILES


def test_kept_memory_grows_with_the_number_of_tiles() -> None:
    """y of every tile and of the whole image, not only of active tiles."""
    small, large = (run_memory([(3, side, side)], 32, False, 128) for side in (1000, 2000))
    pixels = 2000**2 - 1000**2
    assert 3 * 32 * pixels < large - small < 3 * 64 * pixels


@pytest.mark.parametrize(
    "kind", ["plain", pytest.param("fused", marks=pytest.mark.skipif(kernels.library() is None, reason="no compiler"))]
)
@pytest.mark.slow
def test_model_bounds_the_measured_peak(kind: str) -> None:
    """Measurements of ``scripts/measure_memory.py``, in a separate process."""
    script = Path(__file__).parents[2] / "scripts" / "measure_memory.py"
    command = [sys.executable, str(script), "--case", "32", "256", "fp32", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    measured = int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    large, small = (run_memory([(3, n, n)], 32, bf16=False, fused=kind == "fused") for n in (256, 64))
    model = large - small
    assert 0.75 * measured < model < 3 * measured


def test_networks_of_large_images_are_bounded() -> None:
    needs = [run_memory([(3, height, 4000)], 32, True, 192, fused=True, threads=2) for height in (3000, 6000)]
    assert needs[0] < 3 * GIB
    assert needs[1] - needs[0] < 150 * 3 * 3000 * 4000
    several = run_memory([(3, 1000, 1000)] * 20, 32, True, 192, fused=True)
    assert several < run_memory([(3, 1000, 1000)], 32, True, 192, fused=True) + 20 * 3 * 1000**2 * 150


@pytest.mark.parametrize(("limit", "tile"), [(64, 1048), (3.95, 896), (3, 384)])
def test_tiles_without_a_network_follow_the_memory(limit: float, tile: int) -> None:
    cost = RecoveryCost([(3, 3000, 4000)], 0, PRESETS["instant"], "auto", torch.device("cpu"))
    with threads_here(2):
        chosen = cost.choose_tile(round(limit * GIB))
        assert chosen is not None
        assert cost.memory(chosen) <= limit * GIB
        assert chosen == tile
