"""Restore one image in Python: what ``dop recover`` does with a file, without a Trainer, folders and logs."""

import math
import warnings
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.at_once import run_batches
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.engine.steps import Dense
from dop_lightning.engine.steps.clean_entries import Sign, check_damage
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.devices import resolve_device
from dop_lightning.foundation.units import parse_bytes
from dop_lightning.images.cost import RecoveryCost, block_length
from dop_lightning.images.formats.image_files import load_raster, repainted
from dop_lightning.images.formats.image_format import LoadedImage
from dop_lightning.images.formats.masks import observed_by
from dop_lightning.images.formats.outliers import check_range_given, within_reach
from dop_lightning.images.formats.raster import Raster, Unsuitable
from dop_lightning.images.formats.samples import image_name
from dop_lightning.images.formats.stretch import Stretch
from dop_lightning.images.formats.value_range import checked_range
from dop_lightning.images.history import EVERY, History, HistoryListener, mean_history
from dop_lightning.images.image_objects import FileImage, ImageLike, ImageObject, image_object
from dop_lightning.images.interrupt import first_interrupt
from dop_lightning.images.measured import as_measured
from dop_lightning.images.mosaics import combine
from dop_lightning.images.presets import PRESETS, TAU, Precision
from dop_lightning.images.progress import progress_bar
from dop_lightning.images.recovery import Recovery
from dop_lightning.images.tiles import cut
from dop_lightning.images.verdict import doubt
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import least_corruption


def recover_image(
    image: ImageLike,
    *,
    mask: ImageLike | None = None,
    truth: ImageLike | None = None,
    value_range: tuple[float, float] | None = None,
    per: Literal["entry", "pixel"] = "entry",
    damage: str = "auto",
    outliers: Sign = "auto",
    dense: Dense = "auto",
    preset: Literal["instant", "quick", "default", "best", "paper"] = "default",
    iterations: int | None = None,
    alpha: float | None = None,
    width: int | None = None,
    seed: int = 0,
    tile: int | None = None,
    max_memory: str | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    progress: bool | None = None,
) -> Recovery:
    """Restore an image with dead or random pixels. Nothing needs to be known of the damage.

    It gives what ``dop recover`` gives for a file of the same values and the same options, bit for bit on the same
    machine with the same threads. Nothing is written; threads and random generators of the process stay as they are.
    In a container torch counts the cores of the whole machine: ``torch.set_num_threads`` with those that there are can
    make it many times faster there.

    Integers of 8 bits have values from 0 to 255; of others, and of floating point, the range is found, see
    :mod:`~dop_lightning.images.formats.value_range`. NaN and transparent pixels are missing, and come back filled in;
    alpha stays as it is.

    Ctrl-C, or the stop button of a notebook, ends the work after the block in progress, within about a second: what is
    recovered so far comes back with the status ``interrupted`` and a warning, tiles that have not begun as they were
    observed. A second Ctrl-C raises ``KeyboardInterrupt`` at once, and so does the first if nothing has begun.

    Args:
        image: a NumPy array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` (channels are the shorter of the first and the
            last axis, the last where these are equal; none is alpha), of booleans, integers or floats of up to 64 bits;
            an image of PIL of the modes 1, L, LA, P, RGB, RGBA, I, I;16 or F; a torch tensor ``(H, W)`` or
            ``(C, H, W)`` on any device; or a file of any kind that ``dop recover`` reads, or a sample, by name;
            ``"frame.fits[1]"`` and ``"frame.fits[SCI]"`` are one HDU of a file.
        mask: which values were observed: true, or above half of its largest value. Of any of these kinds, of the size
            of the image, with one channel or those of the image.
        truth: the clean image, for scores alone; of any of these kinds, in the units and with the channels of the
            image.
        value_range: the least and the largest clean value, in the units of the image.
        per: whether each channel of a pixel is corrupted by itself, or the whole pixel.
        damage: what is damaged besides isolated entries: ``points``, nothing; ``lines`` and ``auto``, dead rows
            and columns; ``scratches``, ``rectangles``, ``dust`` or ``text``, these as well; join several of them as
            in ``scratches+dust``. What is found counts as missing, and is filled in.
        outliers: ``positive`` (cosmic rays, hot pixels), ``negative`` or ``both``; ``auto`` finds it in frames that
            noise limits, and is both elsewhere. Not of the preset ``paper``.
        dense: ``keep`` dense noise beside the outliers where it is, or ``remove`` it; ``auto`` removes it where there
            is much of it in an image of 8 bits.
        preset: ``instant`` (no network), ``quick``, ``default``, ``best`` (for a GPU) or ``paper`` (days), see
            ``dop recover --help``.
        iterations: gradient iterations, at least 1; by default those of the preset.
        alpha: ratio of the learning rates, above 0; by default that of the preset, or by the size of the image.
        width: channels of the network, at least 1; by default that of the preset.
        seed: of the random numbers.
        tile: recover in overlapping tiles of this many pixels a side, at least 8; by default where memory needs it.
        max_memory: such as ``8G``: what takes more is recovered in tiles; by default four fifths of what is free.
        device: ``auto`` (that of a tensor on a GPU, else a GPU where there is one), ``cpu``, ``gpu``, or as torch names
            them: ``cuda:1``.
        precision: of the network, and of the products in its optimizer: ``fp32``, ``bf16``, or ``auto``, bf16 where the
            processor has units for it.
        progress: whether to show a bar; by default in notebooks and on terminals.

    Returns:
        The recovered image, of the same kind, and what was found of the corruption.

    Raises:
        ValueError: an argument is out of range, of no known kind, or no file; a mask or truth has another size; the
            image has no pixel, holds infinite values, or is too large for the memory.
        OutOfMemoryError: there was less memory than expected.

    >>> import numpy as np
    >>> from dop_lightning import recover_image
    >>> damaged = np.full((16, 16), 200, dtype=np.uint8)
    >>> damaged[::5, ::5] = 0
    >>> recovery = recover_image(damaged, preset="quick", width=4, iterations=2, device="cpu", progress=False)
    >>> recovery.image.shape, recovery.image.dtype, recovery.status, recovery.history["iteration"]
    ((16, 16), dtype('uint8'), 'done', [2])
    """
    chosen = PRESETS[one_of("preset", preset, PRESETS)]
    width, maximum = chosen.size(width, iterations)
    one_of("per", per, ["entry", "pixel"])
    check_damage(damage)
    one_of("precision", precision, ["auto", "bf16", "fp32"])
    alpha = chosen.alpha if alpha is None else positive("alpha", alpha)
    where = resolve_device(device, image)
    limit = None if max_memory is None else parse_bytes(max_memory, "max_memory")
    if tile is not None:
        at_least("tile", tile, 8)
    given = image_object(image)
    loaded = _load(given, value_range)
    problem = _problem(given, loaded, mask, truth, _whole("seed", seed))
    channels, height, columns = problem.observation.shape
    shapes = [(channels, height, columns)]
    cost = RecoveryCost(shapes, width, chosen, precision, where, option="max_memory", subject="this image")
    side = cost.choose_tile(limit) if tile is None else cost.check_tile(tile, limit)
    mosaic = None if side is None else cut(problem, side)
    problems = [problem] if mosaic is None else list(mosaic.tiles.values())
    method = chosen.method(width, precision, per, outliers, damage, dense)
    # whatever is around: gradients are needed, and arrays that remember them
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        first_interrupt() as stop,
        progress_bar(progress, maximum * len(problems)) as tell,
    ):
        block = block_length(max(math.prod(each.observation.shape[1:]) for each in problems), width, where.type)
        history = HistoryListener(maximum, tell)
        try:
            run_batches(
                method,
                [ProblemBatch([each]) for each in problems],
                maximum,
                block=block,
                listeners=[history],
                device=where,
                tau=TAU,
                alpha=alpha,
                evaluate_every=EVERY,
                interrupted=stop,
            )
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"{error}; a smaller tile, or a smaller width, takes less") from None
    if not history.outcomes:
        raise KeyboardInterrupt
    some = next(iter(history.outcomes.values()))
    outcomes = [history.outcomes.get(each.name) or _not_begun(each, some) for each in problems]
    outcome = outcomes[0] if mosaic is None else combine(mosaic, dict(zip(mosaic.tiles, outcomes, strict=True)))
    _warn(outcome, maximum)
    curves = [history.curves[each.name] for each in problems if each.name in history.curves]
    return _recovery(given, loaded, outcome, mean_history(curves))


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return value


def _load(given: ImageObject, value_range: tuple[float, float] | None) -> LoadedImage:
    """The image as a problem takes it."""
    checked = None if value_range is None else checked_range(value_range)
    try:
        loaded = load_raster(given.raster, value_range=checked)
        if checked is not None:
            check_range_given(loaded)
    except Unsuitable as error:
        raise ValueError(f"{given.name}: {error}") from None
    return loaded


def _problem(
    given: ImageObject, loaded: LoadedImage, mask: ImageLike | None, truth: ImageLike | None, seed: int
) -> Problem:
    """What is to be recovered."""
    observed = loaded.mask
    if mask is not None:
        own = image_object(mask, "mask")
        told = observed_by(own.raster, loaded, own.name)
        observed = told if observed is None else observed & told
        if not observed.any():
            raise ValueError(f"{own.name}: the mask must leave an observed entry of {given.name}, got none")
    problem = Problem(
        name=image_name(given.path) if isinstance(given, FileImage) else given.name,
        observation=within_reach(loaded),
        truth=None if truth is None else _truth(image_object(truth, "truth"), loaded),
        mask=None if observed is None or observed.all() else observed,
        seed=seed,
        data_range=1.0,
    )
    return as_measured(problem, loaded)


def _truth(given: ImageObject, like: LoadedImage) -> Tensor:
    """The clean image, in the range of the image."""
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
        raise ValueError(f"{given.name}: the truth must be known everywhere, got {missing} NaN or transparent entries")
    return loaded.values


def _not_begun(tile: Problem, other: Outcome) -> Outcome:
    """The outcome of a tile whose turn did not come: the observation. Rates are those of another tile."""
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


def _warn(outcome: Outcome, maximum: int) -> None:
    """Say what is not as it should be."""
    if outcome.status == "interrupted":
        warnings.warn(
            f"interrupted after {outcome.iteration} of {maximum} iterations: this is what is recovered so far",
            RuntimeWarning,
            stacklevel=3,
        )
    if message := doubt(outcome):
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    if outcome.status == "diverged":
        warnings.warn(
            f"diverged after {outcome.iteration} of {maximum} iterations: this is what was recovered before; a smaller "
            f"alpha is needed, got {outcome.alpha:.4g}",
            RuntimeWarning,
            stacklevel=3,
        )


def _in_units(loaded: LoadedImage, recovered: Raster, corruption: np.ndarray, exact: bool) -> np.ndarray:
    """The corruption ``(H, W, C)`` in the units of the image; ``exact`` beyond its range as well."""
    low, high = loaded.format.value_range
    if not exact and not isinstance(loaded.format.value_range, Stretch):
        return corruption.astype(np.float64) * (high - low)
    off = loaded.format.raster.colours().astype(np.float64) - recovered.colours()
    return np.where(corruption == 0, 0.0, off)


def _recovery(given: ImageObject, loaded: LoadedImage, outcome: Outcome, history: History) -> Recovery:
    """The outcome in the units and the layout of the image."""
    corruption = outcome.corruption.permute(1, 2, 0).numpy()  # (C, H, W) -> (H, W, C)
    found = np.abs(corruption) > least_corruption(outcome.problem)
    if outcome.problem.mask is not None:
        found &= outcome.problem.mask.permute(1, 2, 0).numpy()
    recovered = repainted(outcome.signal, loaded.format)
    off = _in_units(loaded, recovered, corruption, outcome.problem.noise is not None)
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
