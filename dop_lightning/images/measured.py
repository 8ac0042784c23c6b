"""The noise of an image whose values are measurements."""

from dataclasses import replace

import torch

from dop_lightning.engine.steps.clean_entries import background_noise
from dop_lightning.images.formats.image_format import LoadedImage
from dop_lightning.images.formats.measured import is_measured
from dop_lightning.images.formats.outliers import within_reach
from dop_lightning.images.formats.stretch import Stretch
from dop_lightning.problems.problem import Problem


def as_measured(problem: Problem, image: LoadedImage) -> Problem:
    """The problem of an image, with the noise of its values where they are measurements and noise limits them."""
    raster, value_range = image.format.raster, image.format.value_range
    if not is_measured(raster, value_range):
        return problem
    y = within_reach(image)
    known = torch.ones_like(y, dtype=torch.bool) if problem.mask is None else problem.mask
    # the distance of two integers; a stretch makes it larger in the dark, and needs none: the noise is far above it
    whole = raster.samples.dtype.kind in "iu" and not isinstance(value_range, Stretch)
    step = 1 / (value_range[1] - value_range[0]) if whole else 0.0
    return replace(problem, measured=True, noise=background_noise(y, known, step))
