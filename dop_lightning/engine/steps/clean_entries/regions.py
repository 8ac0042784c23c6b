"""Easy tiles: support and interpolation of many tiles at once, where few outliers need no network.

A region is a rectangle of adjacent tiles (:class:`~dop_lightning.problems.problem.Part`). The first support of a region
takes less time than that of each of its tiles. It is used for the tiles that are easy
(:mod:`~dop_lightning.engine.steps.clean_entries.easy`), and ignored for the others. A region is not examined further
if its first look is final, or finds more than a few outliers.

Shapes: C×H×W, a region; C×h×w, a tile.
"""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.dense import dense_noise
from dop_lightning.engine.steps.clean_entries.easy import MAX_OUTLIER_FRACTION, is_easy
from dop_lightning.engine.steps.clean_entries.errors import mean_errors
from dop_lightning.engine.steps.clean_entries.initial import initial, initial_support
from dop_lightning.engine.steps.clean_entries.interpolation import interpolate
from dop_lightning.engine.steps.clean_entries.joint import Per
from dop_lightning.engine.steps.clean_entries.sharp import Sign
from dop_lightning.engine.steps.clean_entries.support import sample_pixels
from dop_lightning.problems.problem import Part, Problem, Window, scale

SAMPLE_FRACTION = 0.03
"""Fraction of the pixels of a region that are used to measure the error of the interpolation."""

MAX_LOOK_FRACTION = 2 * MAX_OUTLIER_FRACTION
"""Maximum fraction of outliers in the first look at a region. The first look may be wrong by a factor."""

KEPT_REGIONS = 8
"""Number of regions that are kept in addition to those of a row. Tiles begin row by row, but several at a time."""

POLL_SECONDS = 0.1
"""Seconds between two checks for an interruption while another thread examines the region."""


class EasyTile(NamedTuple):
    """Support and interpolation of an easy tile.

    Attributes:
        clean: w, probability that each entry is clean, ``(C, h, w)``.
        estimate: the interpolation, ``(C, h, w)``; only used where ``clean`` is not near 1.
        error: mean error of the interpolation at held-out entries.
        guessed: mean error of the mean value at these entries.
        dense: estimated standard deviation of dense noise, relative to the scale of the observation.
        joint: whether the channels of a pixel are corrupted together.
    """

    clean: Tensor
    estimate: Tensor
    error: float
    guessed: float
    dense: float
    joint: bool


class _Region(NamedTuple):
    """Support and interpolation of a region, the pixels at which all entries were predicted, and structured damage."""

    clean: Tensor
    estimate: Tensor
    sample: Tensor
    damaged: Tensor
    joint: bool


_Settings = tuple[str, Per, Sign, torch.device]


def easy_tile(
    problem: Problem, y: Tensor, kept: float, damage: str, per: Per, sign: Sign, poll: Callable[[], None]
) -> EasyTile | None:
    """Return support and interpolation of a tile if it is easy, else ``None``.

    Args:
        problem: a problem that observes entries of an image directly.
        y: its observation, on the device to use.
        kept: probability of being clean above which entries are kept unchanged.
        damage: see :class:`~dop_lightning.engine.steps.Refinement`.
        per: likewise.
        sign: likewise.
        poll: function called between the steps. To cancel, raise an exception in it.
    """
    part = problem.part
    if part is None or part.region is None or problem.noise is not None or part.whole.has_mask:
        return None
    holder = part.whole.in_memory()
    with _LOCK:
        settings = (damage, per, sign, y.device)
        regions = _FOUND.setdefault(holder, {}).setdefault(settings, _Regions())
    region = regions.of(part.region, part.regions, lambda k: _examine(part, k, kept, settings, poll), poll)
    if region is None:
        return None
    window = (..., *part.within(part.regions[part.region]))
    clean, estimate, sample, damaged = (values[window].contiguous() for values in region[:4])
    size = scale(problem)
    if bool(damaged.any()) or not is_easy(y, clean, estimate, sample, size):
        return None
    error, guessed = mean_errors(y, estimate, clean * sample)
    dense = float(dense_noise(y, estimate, clean, sample)) / size
    return EasyTile(clean, estimate, error, guessed, dense, region.joint)


def _examine(part: Part, k: int, kept: float, settings: _Settings, poll: Callable[[], None]) -> _Region | None:
    """Return support and interpolation of a region; ``None`` if its tiles are to be examined one by one."""
    damage, per, sign, device = settings
    problem = part.whole.window(*part.regions[k], name=part.whole.name, folder=part.whole.folder)
    y = problem.observation.to(device)
    poll()
    found = initial(problem, damage, per == "pixel", sign, y)
    if found.look.decides or float((1 - found.look.clean).mean()) > MAX_LOOK_FRACTION:
        return None
    support = initial_support(found, y, scale(problem), per, sign, poll)
    if support.is_uncertain or not float((1 - support.clean).mean()) <= MAX_LOOK_FRACTION:
        return None
    poll()
    sample = sample_pixels(y, SAMPLE_FRACTION)
    held_out = interpolate(y, support.clean.masked_fill(sample, 0), sample, support.estimate)
    poll()
    doubted = support.clean <= kept
    estimate = torch.where(doubted, interpolate(y, support.clean, doubted, support.estimate), held_out)
    return _Region(support.clean, estimate, sample & ~doubted, found.damaged, support.joint)


class _Regions:
    """Results of the regions of an image. Each is computed once, by any of the threads that recover its tiles."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._found: dict[int, _Region | None] = {}
        self._begun: dict[int, int] = {}  # thread that examines a region

    def of(
        self,
        k: int,
        windows: Sequence[Window],
        examine: Callable[[int], _Region | None],
        poll: Callable[[], None],
    ) -> _Region | None:
        """Return the result of region k.

        While another thread examines it, the next region is examined, so that no thread is idle.

        Args:
            k: position of the region.
            windows: the regions, row by row.
            examine: computes the result of a region.
            poll: may raise an exception to stop waiting.
        """
        own, row = threading.get_ident(), sum(window[0] == windows[k][0] for window in windows)
        while True:
            with self._changed:
                for each in [each for each, thread in self._begun.items() if thread == own]:
                    del self._begun[each]  # this thread was interrupted
                for each in [each for each in self._found if each < k - row - KEPT_REGIONS]:
                    del self._found[each]  # its tiles have begun
                if k in self._found:
                    return self._found[k]
                mine = self._next(k, len(windows))
                if mine is None:
                    self._changed.wait(POLL_SECONDS)
                else:
                    self._begun[mine] = own
            if mine is None:
                poll()
            else:
                self._examine(mine, examine)

    def _next(self, k: int, count: int) -> int | None:
        """Return the region to examine: k, or the one after those that are being examined; ``None`` to wait for k."""
        ahead = range(k, min(count, k + len(self._begun) + 1))
        return next((each for each in ahead if each not in self._found and each not in self._begun), None)

    def _examine(self, k: int, examine: Callable[[int], _Region | None]) -> None:
        """Store the result of a region."""
        try:
            result = examine(k)
            with self._changed:
                self._found[k] = result
        finally:
            with self._changed:
                self._begun.pop(k, None)
                self._changed.notify_all()


_FOUND: WeakKeyDictionary[object, dict[_Settings, _Regions]] = WeakKeyDictionary()
"""Regions of whole images, shared by their tiles, kept while the tensors of the image are in memory."""

_LOCK = threading.Lock()
"""Guards :data:`_FOUND`."""
