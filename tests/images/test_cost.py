"""Estimates of memory and time, and how they are said."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dop_lightning.foundation.units import in_bytes, in_words, parse_bytes
from dop_lightning.images.cost import TILES, choose_tile, run_memory, seconds_an_iteration
from dop_lightning.model.signals.unet import kernels

GIB = 2**30
LARGE = (3, 1000, 1500)


class TestRunMemory:
    def test_grows_with_pixels_width_and_precision(self) -> None:
        base = run_memory([(3, 256, 256)], 64, bf16=False)
        assert run_memory([(3, 512, 512)], 64, bf16=False) > base
        assert run_memory([(3, 256, 256)], 128, bf16=False) > base
        assert run_memory([(3, 256, 256)], 64, bf16=True) < base

    def test_tiles_take_less_and_smaller_ones_less_still(self) -> None:
        needs = [run_memory([LARGE], 64, bf16=False, tile=tile) for tile in (None, *TILES)]
        assert needs[0] > 2 * needs[1]
        assert needs[1:5] == sorted(needs[1:5], reverse=True)

    def test_every_image_of_a_run_is_kept_and_one_at_a_time_iterates(self) -> None:
        one = run_memory([(3, 256, 256)], 64, bf16=False)
        two = run_memory([(3, 256, 256)] * 2, 64, bf16=False)
        assert one < two < 2 * one

    def test_a_tile_larger_than_the_image_changes_nothing(self) -> None:
        assert run_memory([(1, 37, 51)], 64, bf16=False, tile=64) == run_memory([(1, 37, 51)], 64, bf16=False)


class TestChooseTile:
    def test_what_fits_is_taken_whole(self) -> None:
        assert choose_tile([LARGE], 32, False, 64 * GIB) is None

    @pytest.mark.parametrize("limit", [2.4, 2.7, 3, 5, 8])
    def test_the_largest_that_fits(self, limit: float) -> None:
        tile = choose_tile([LARGE, (1, 64, 64)], 64, False, round(limit * GIB))
        assert tile in TILES
        assert run_memory([LARGE, (1, 64, 64)], 64, False, tile) <= limit * GIB
        larger = [t for t in TILES if t > tile]
        assert all(run_memory([LARGE, (1, 64, 64)], 64, False, t) > limit * GIB for t in larger)

    def test_a_limit_below_the_smallest_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"max-memory must be at least .* width 64, got 100 MiB"):
            choose_tile([LARGE], 64, False, 100 * 2**20)


def test_a_few_iterations_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    done: list[int] = []
    monkeypatch.setattr("dop_lightning.images.cost.time.perf_counter", lambda: next(clock))
    state = SimpleNamespace(advance=done.append)
    assert seconds_an_iteration(state, least=3.0) > 0  # type: ignore[arg-type]
    assert done == [1, 1, 1, 1]  # the first is not counted
    done.clear()
    seconds_an_iteration(state, least=math.inf, most=2)  # type: ignore[arg-type]
    assert len(done) == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (12, "about 10 seconds"),
        (54, "about 55 seconds"),
        (58, "about 1 minute"),
        (100, "about 2 minutes"),
        (54 * 60, "about 54 minutes"),
        (56 * 60, "about 0.9 hours"),
        (3600, "about 1 hour"),
        (9.6 * 3600, "about 10 hours"),
        (48 * 3600, "about 2 days"),
        (300 * 86400, "about 300 days"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 * GIB), ("1.5gib", 1.5 * GIB), (" 500 MB ", 500 * 2**20), ("2t", 2048 * GIB), (".5", GIB / 2)],
)
def test_amounts_of_memory_as_typed(text: str, size: float) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1G", "0", "0G", "8 G B", "nan", "1e9999", "8GG", "٣G", "9999999999T"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="max-memory must be an amount such as 8G or 500M, above 0, got "):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 MiB"),
        (999 * 2**20, "999 MiB"),
        (1000 * 2**20, "1000 MiB"),
        (1.5 * GIB, "1.5 GiB"),
        (12345 * GIB, "12345 GiB"),
    ],
)
def test_amounts_of_memory_in_words(size: float, text: str) -> None:
    assert in_bytes(size) == text


def test_the_advised_amount_is_enough() -> None:
    for width in (8, 32, 64, 128):
        for shape in ((3, 1000, 1500), (1, 3000, 1500)):
            with pytest.raises(ValueError, match="max-memory must be at least") as refused:
                choose_tile([shape], width, False, 2**20)
            advised = re.search(r"at least (\S+) ", str(refused.value))
            assert advised is not None
            assert choose_tile([shape], width, False, parse_bytes(advised[1])) in TILES


def test_what_is_kept_grows_with_the_number_of_tiles() -> None:
    """y, g, h, w and their copies of every tile, and the whole: not only the part that is at work."""
    small, large = (run_memory([(3, side, side)], 32, False, 128) for side in (1000, 2000))
    pixels = 2000**2 - 1000**2
    assert 3 * 100 * pixels < large - small < 3 * 300 * pixels


@pytest.mark.parametrize(
    "kind", ["plain", pytest.param("fused", marks=pytest.mark.skipif(kernels.library() is None, reason="no compiler"))]
)
def test_the_model_holds_the_measured_peak(kind: str) -> None:
    """What ``scripts/measure_memory.py`` measures in a process of its own."""
    script = Path(__file__).parents[2] / "scripts" / "measure_memory.py"
    command = [sys.executable, str(script), "--case", "32", "256", "fp32", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    measured = int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    large, small = (run_memory([(3, n, n)], 32, bf16=False, fused=kind == "fused") for n in (256, 64))
    model = large - small
    assert 0.75 * measured < model < 3 * measured
