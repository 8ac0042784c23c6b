"""Descriptions of the presets for ``dop recover --help``, with the time of each on this machine."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from dop_lightning.engine.concurrency import concurrent_batches
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.graphs import iterations_ahead
from dop_lightning.engine.measure import seconds_per_iteration
from dop_lightning.foundation.machine import keep_freed_memory, set_threads
from dop_lightning.foundation.units import format_duration
from dop_lightning.images.presets import PRESETS, TAU, Preset
from dop_lightning.images.tiles import cover
from dop_lightning.problems.noise import SaltAndPepper
from dop_lightning.problems.problem import Part, Problem, ProblemBatch

PROBE = 128
"""Side in pixels of the image with which presets are timed."""


def preset_lines(side: int = 512) -> Iterator[str]:
    """Yield one line per preset, with its time on this machine for a colour image of ``side``×``side`` pixels.

    Each line is yielded as soon as it is measured.
    """
    set_threads()
    keep_freed_memory()
    rates = Rates()
    device, threads = rates.device, torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"this CPU, {threads} thread{'s' * (threads > 1)}"
    yield f"presets, with their time for {side}×{side} pixels in colour on {where}:"
    for name, preset in PRESETS.items():
        seconds = rates.seconds(preset, side, side)
        setting = f"width {preset.width}, {preset.iterations} iterations" if preset.has_network else ""
        yield f"  {name:<8} {setting:<30} {format_duration(seconds):<18} {preset.text}"


class Rates:
    """Speed of presets on this machine. Each preset is timed once, at its first use."""

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._measured: dict[tuple[Preset, bool], float] = {}

    def seconds(self, preset: Preset, height: int, width: int) -> float:
        """Estimate the seconds of a preset for a colour image of ``height``×``width`` pixels."""
        tile = preset.tile_for((height, width))
        key = (preset, tile is not None)
        if key not in self._measured:
            self._measured[key] = _probe(preset, self.device, tile is not None)
        grid = cover((height, width), tile or max(height, width))
        pixels = len(grid.places) * math.prod(grid.tile)
        return preset.iterations * pixels / PROBE**2 * self._measured[key]


def _probe(preset: Preset, device: str, in_tiles: bool) -> float:
    """Measure the seconds of one iteration at ``PROBE``×``PROBE`` pixels."""
    if not preset.has_network:
        return min(_time_without_network(preset, device) for _ in range(2))
    one = probe_state(preset, PROBE, in_tiles, device)
    beside = [probe_state(preset, PROBE, in_tiles, device) for _ in range(concurrent_batches(one) - 1)]
    return seconds_per_iteration(one, least=0.2, ahead=iterations_ahead(device), beside=beside)


def _time_without_network(preset: Preset, device: str) -> float:
    """Measure the seconds of a preset without a network."""
    truth = torch.rand(3, 1, PROBE, generator=torch.Generator().manual_seed(0)).expand(3, PROBE, PROBE)
    problem = SaltAndPepper(0.3).corrupt(truth.contiguous(), torch.Generator().manual_seed(1)).observation
    state = preset.method().begin(ProblemBatch([Problem("probe", problem, data_range=1.0)], device), TAU)
    begin = time.perf_counter()
    state.advance(1)
    return time.perf_counter() - begin


def probe_state(preset: Preset, side: int, is_tile: bool, device: str = "cpu") -> BatchState:
    """Return a state for timing: of a colour image of ``side``×``side`` pixels, or of a tile of that size."""
    problem = Problem("probe", torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)))
    if is_tile:
        problem = replace(problem, part=Part(problem, slice(0, side), slice(0, side)))
    state = preset.method().begin(ProblemBatch([problem], device), TAU)
    if not isinstance(state, BatchState):
        raise ValueError("preset must have a network to be timed by its iterations, got one without a network")
    return state
