"""Estimate the noise of an image whose values are measurements."""

from dataclasses import replace

import torch

from dop_lightning.engine.steps.clean_entries import background_noise
from dop_lightning.images.formats.image_format import LoadedImage
from dop_lightning.images.formats.measured import is_measured
from dop_lightning.images.formats.outliers import within_reach
from dop_lightning.images.formats.stretch import Stretch
from dop_lightning.problems.problem import Problem


def as_measured(problem: Problem, image: LoadedImage) -> Problem:
    """Mark the problem of a measured image, and estimate its noise if noise limits it; others are unchanged."""
    raster, value_range = image.format.raster, image.format.value_range
    if not is_measured(raster, value_range):
        return problem
    y = within_reach(image)
    known = torch.ones_like(y, dtype=torch.bool) if problem.mask is None else problem.mask
    # spacing of integer values; not needed with a stretch, which widens it in the dark: the noise is far larger
    whole = raster.samples.dtype.kind in "iu" and not isinstance(value_range, Stretch)
    step = 1 / (value_range[1] - value_range[0]) if whole else 0.0
    return replace(problem, measured=True, noise=background_noise(y, known, step))
