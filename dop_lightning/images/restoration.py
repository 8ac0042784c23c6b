"""Restore images in one run, and return each in its original units and layout.

Shapes: C channels, H×W pixels.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.run import Listener
from dop_lightning.engine.runners import run_batches
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.images.cost import block_length
from dop_lightning.images.formats.image_files import load_raster, repainted
from dop_lightning.images.formats.image_format import LoadedImage
from dop_lightning.images.formats.masks import observed_by
from dop_lightning.images.formats.outliers import check_range_given, within_reach
from dop_lightning.images.formats.raster import Raster, Unsuitable
from dop_lightning.images.formats.samples import image_name
from dop_lightning.images.formats.stretch import Stretch
from dop_lightning.images.history import ITERATIONS_PER_ENTRY, History, HistoryListener, mean_history
from dop_lightning.images.image_objects import FileImage, ImageLike, ImageObject, image_object
from dop_lightning.images.listener import current_listener
from dop_lightning.images.live_pictures import LivePictures
from dop_lightning.images.measured import as_measured
from dop_lightning.images.mosaics import combine
from dop_lightning.images.presets import TAU
from dop_lightning.images.progress import Report
from dop_lightning.images.recovery import Recovery
from dop_lightning.images.settings import Settings
from dop_lightning.images.tiles import cut
from dop_lightning.images.verdict import doubt
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import least_corruption


class Request(NamedTuple):
    """An image to restore.

    Attributes:
        given: the image as passed by the user.
        loaded: the image scaled for a problem.
        problem: the problem.
    """

    given: ImageObject
    loaded: LoadedImage
    problem: Problem


def request(
    given: ImageObject,
    settings: Settings,
    *,
    mask: ImageLike | None = None,
    missing: ImageLike | None = None,
    undamaged: ImageLike | None = None,
    truth: ImageLike | None = None,
) -> Request:
    """Prepare an image.

    Args:
        given: the image.
        settings: settings of the recovery.
        mask: true where a value was observed.
        missing: true where a value is missing.
        undamaged: true where a value is known to be undamaged.
        truth: the clean image, for scores.

    Raises:
        ValueError: the arguments do not match each other, or no value was observed.
    """
    try:
        loaded = load_raster(given.raster, value_range=settings.value_range)
        if settings.value_range is not None:
            check_range_given(loaded)
    except Unsuitable as error:
        raise ValueError(f"{given.name}: {error}") from None
    observed = loaded.mask
    for name, flags in (("mask", mask), ("missing", missing)):
        if flags is None:
            continue
        own = image_object(flags, name)
        known = observed_by(own.raster if name == "mask" else inverted(own.raster), loaded, own.name)
        observed = known if observed is None else observed & known
        if not observed.any():
            raise ValueError(f"{own.name}: the mask must keep at least one observed value of {given.name}, got none")
    problem = Problem(
        name=image_name(given.path) if isinstance(given, FileImage) else given.name,
        observation=within_reach(loaded),
        truth=None if truth is None else _truth(image_object(truth, "truth"), loaded),
        mask=None if observed is None or observed.all() else observed,
        seed=settings.seed,
        data_range=1.0,
    )
    if undamaged is not None:
        problem = replace(problem, undamaged=_undamaged(image_object(undamaged, "undamaged"), loaded))
    return Request(given, loaded, as_measured(problem, loaded))


def _undamaged(given: ImageObject, loaded: LoadedImage) -> Tensor | None:
    """Return what is known to be undamaged; ``None`` if nothing is, as in some images of a stack."""
    values = given.raster.upright().colours()
    if values.shape[:2] == loaded.format.size and not np.nan_to_num(values.astype(np.float64)).any():
        return None
    return observed_by(given.raster, loaded, given.name)


def inverted(raster: Raster) -> Raster:
    """Return the inverse of a mask: true where ``raster`` is at most half of its maximum, or NaN.

    >>> inverted(Raster(".npy", np.array([[[0], [9]]]), 64)).samples.ravel().tolist()
    [True, False]
    """
    values = np.nan_to_num(raster.upright().colours().astype(np.float64), nan=0.0)
    most = values.max()
    return Raster(".npy", ~(values > most / 2) if most > 0 else np.ones(values.shape, dtype=bool), 8)


def restore(
    requests: Sequence[Request], settings: Settings, stop: Callable[[], bool], report: Report
) -> list[Recovery | None]:
    """Restore images; ``None`` for images that were interrupted before they started.

    Args:
        requests: the images, with distinct names.
        settings: settings of the recovery.
        stop: returns whether to stop after the block in progress.
        report: called with the number of iterations done, and scores.

    Raises:
        OutOfMemoryError: less memory was available than expected.
        ValueError: an image does not fit in memory.
    """
    found = recover_problems([each.problem for each in requests], settings, stop, report)
    return [
        None if outcome is None else _recovery(each.given, each.loaded, outcome, history)
        for each, (outcome, history) in zip(requests, found, strict=True)
    ]


def recover_problems(
    problems: Sequence[Problem], settings: Settings, stop: Callable[[], bool], report: Report
) -> list[tuple[Outcome | None, History]]:
    """Recover images in batches of one, and return their outcomes and histories.

    Images that are large for the preset or the memory are recovered in tiles, unless they were measured by an operator.
    An image that was interrupted before it started has the outcome ``None`` and an empty history.

    Args:
        problems: images ``(C, H, W)`` with distinct names.
        settings: settings of the recovery.
        stop: returns whether to stop after the block in progress.
        report: called with the number of iterations done, and scores.

    Raises:
        OutOfMemoryError: less memory was available than expected.
        ValueError: an image does not fit in memory.
    """
    tiles = [settings.tile_for(_signal_shape(each)) if each.sensing is None else None for each in problems]
    mosaics = [None if tile is None else cut(each, tile) for each, tile in zip(problems, tiles, strict=True)]
    parts = [
        [each] if mosaic is None else list(mosaic.tiles.values())
        for each, mosaic in zip(problems, mosaics, strict=True)
    ]
    pieces = [piece for each in parts for piece in each]
    history = HistoryListener(settings.maximum, report)
    listeners: list[Listener] = [history]
    if (found := current_listener()) is not None and found.wants_pictures:
        listeners.append(LivePictures(problems, mosaics, found.show))
    largest = max(math.prod(each.signal_shape[1:]) for each in pieces)
    # regardless of the caller's context: the run needs gradients, and tensors that support them
    with torch.inference_mode(False), torch.no_grad(), _memory_advice():
        run_batches(
            settings.method(),
            [ProblemBatch([each]) for each in pieces],
            settings.maximum,
            block=block_length(largest, settings.width, settings.device.type),
            listeners=listeners,
            device=settings.device,
            tau=TAU,
            alpha=settings.alpha,
            evaluate_every=ITERATIONS_PER_ENTRY,
            interrupted=stop,
        )
    results: list[tuple[Outcome | None, History]] = []
    for mosaic, own in zip(mosaics, parts, strict=True):
        some = next((history.outcomes[part.name] for part in own if part.name in history.outcomes), None)
        if some is None:
            results.append((None, {}))
            continue
        outcomes = [history.outcomes.get(part.name) or _unstarted_outcome(part, some) for part in own]
        outcome = outcomes[0] if mosaic is None else combine(mosaic, dict(zip(mosaic.tiles, outcomes, strict=True)))
        curves = [history.curves[part.name] for part in own if part.name in history.curves]
        results.append((outcome, mean_history(curves)))
    return results


@contextmanager
def _memory_advice() -> Iterator[None]:
    """Add advice to errors about memory."""
    try:
        yield
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{error}; use a smaller tile or width") from None


def warn(recovery: Recovery, settings: Settings, stacklevel: int) -> None:
    """Warn about interruption, divergence, and implausible amounts of corruption."""
    outcome, maximum = recovery._outcome, settings.maximum
    stacklevel += 1
    if outcome.status == "interrupted":
        warnings.warn(
            f"interrupted after {outcome.iteration} of {maximum} iterations; returning the current result",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
    if message := doubt(outcome):
        warnings.warn(message, RuntimeWarning, stacklevel=stacklevel)
    if outcome.status == "diverged":
        warnings.warn(
            f"diverged after {outcome.iteration} of {maximum} iterations; returning the last valid result. Use a "
            f"smaller alpha, got {outcome.alpha:.4g}",
            RuntimeWarning,
            stacklevel=stacklevel,
        )


def _signal_shape(problem: Problem) -> tuple[int, int, int]:
    channels, height, width = problem.observation.shape
    return channels, height, width


def _truth(given: ImageObject, like: LoadedImage) -> Tensor:
    """Return the clean image, scaled by the range of the image."""
    truth = _load_known(given, like)
    if truth.shape != like.values.shape:
        raise ValueError(
            f"{given.name}: the truth must have the channels, height and width of the image, "
            f"{tuple(like.values.shape)}, got {tuple(truth.shape)}"
        )
    return truth


def _load_known(given: ImageObject, like: LoadedImage) -> Tensor:
    try:
        loaded = load_raster(given.raster, value_range=like.format.value_range)
    except Unsuitable as error:
        raise ValueError(f"{given.name}: {error}") from None
    if loaded.mask is not None:
        missing = int((~loaded.mask).sum())
        raise ValueError(f"{given.name}: the truth must be complete, got {missing} NaN or transparent entries")
    return loaded.values


def _unstarted_outcome(tile: Problem, other: Outcome) -> Outcome:
    """Return the outcome of a tile that has not started: its observation, with the rates of another tile."""
    return replace(
        other,
        problem=tile,
        status="interrupted",
        iteration=0,
        seconds=0.0,
        signal=tile.observation,
        corruption=torch.zeros_like(tile.observation),
        scores={},
        corruption_probability=None,
    )


def _to_image_units(loaded: LoadedImage, recovered: Raster, corruption: np.ndarray, exact: bool) -> np.ndarray:
    """Return the corruption ``(H, W, C)`` in the units of the image; if ``exact``, also beyond its range."""
    low, high = loaded.format.value_range
    if not exact and not isinstance(loaded.format.value_range, Stretch):
        return corruption.astype(np.float64) * (high - low)
    off = loaded.format.raster.colours().astype(np.float64) - recovered.colours()
    return np.where(corruption == 0, 0.0, off)


def _recovery(given: ImageObject, loaded: LoadedImage, outcome: Outcome, history: History) -> Recovery:
    """Convert an outcome to the units and the layout of the image."""
    corruption = outcome.corruption.permute(1, 2, 0).numpy()  # (C, H, W) -> (H, W, C)
    found = np.abs(corruption) > least_corruption(outcome.problem)
    if outcome.problem.mask is not None:
        found &= outcome.problem.mask.permute(1, 2, 0).numpy()
    recovered = repainted(outcome.signal, loaded.format)
    off = _to_image_units(loaded, recovered, corruption, outcome.problem.noise is not None)
    probability = outcome.corruption_probability
    return Recovery(
        image=given.like(recovered),
        corruption=given.entries(off.astype(given.entry_dtype())),
        corruption_probability=None if probability is None else given.entries(probability.permute(1, 2, 0).numpy()),
        mask=given.entries(found),
        history=history,
        status=outcome.status,
        iterations=outcome.iteration,
        alpha=outcome.alpha,
        seconds=outcome.seconds,
        _outcome=outcome,
        _format=loaded.format,
        _from_file=isinstance(given, FileImage),
    )
