"""Live pictures of images during their recovery, about once per second."""

import time
from collections.abc import Callable, Sequence

from dop_lightning.engine.evaluated import Ending, EvaluatedBatch
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.state import State
from dop_lightning.images.pictures import Picture
from dop_lightning.images.preview import Preview
from dop_lightning.images.tiles import Mosaic, Place
from dop_lightning.problems.problem import Problem

MIN_INTERVAL = 1.0
"""Minimum number of seconds between two pictures."""

LIMIT = 512
"""Maximum number of pixels per side."""


class LivePictures(Listener):
    """Shows the current result of the image in progress. The states of the run are not modified.

    Args:
        problems: the images.
        mosaics: tiles of each image, ``None`` for images that are recovered whole.
        show: called with each picture.
    """

    def __init__(
        self, problems: Sequence[Problem], mosaics: Sequence[Mosaic | None], show: Callable[[Picture], None]
    ) -> None:
        self._show = show
        self._last = time.monotonic() - MIN_INTERVAL
        self._places: dict[str, tuple[Preview, Place]] = {}
        for whole, mosaic in zip(problems, mosaics, strict=True):
            preview = Preview(whole, None if mosaic is None else mosaic.grid, LIMIT)
            parts = {(0, 0): whole} if mosaic is None else mosaic.tiles
            self._places.update({part.name: (preview, place) for place, part in parts.items()})

    def on_block(self, run: Run, state: State, iterations: int) -> None:
        """Show the current result if :data:`MIN_INTERVAL` seconds have passed."""
        if time.monotonic() - self._last >= MIN_INTERVAL:
            self._update(EvaluatedBatch(state, run.scorer), last=False)

    def on_end(self, run: Run, ending: Ending) -> None:
        """Show the final result."""
        self._update(ending, last=True)

    def _update(self, batch: EvaluatedBatch, last: bool) -> None:
        preview, place = self._places[batch.problems.names[0]]
        preview.show(batch.evaluation.signal[0].cpu(), place, last)
        self._last = time.monotonic()
        self._show(preview.picture())
