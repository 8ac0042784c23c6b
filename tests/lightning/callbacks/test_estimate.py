"""How long a run of a filter is going to take: other runs are in ``test_progress.py``."""

from pathlib import Path

import pytest

from dop_lightning.engine.rivals import DetectAndFill, ExtremeValues, NormalisedConvolution
from dop_lightning.lightning.callbacks import IterationProgress, standard_callbacks
from dop_lightning.lightning.callbacks.pace import Pace
from dop_lightning.lightning.module import DoubleOverparameterization


@pytest.mark.parametrize(("tile", "said"), [(24, ["The remaining parts will take about 3 minutes"]), (None, [])])
def test_first_part_predicts_the_duration_of_others(
    tile: int | None, said: list[str], fit, images, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute for each of three that wait."""
    left = property(lambda pace: 180.0 * (1 - pace.done) / 0.75)
    monkeypatch.setattr(Pace, "seconds_left", left)
    callbacks = [
        IterationProgress(estimate=True) if isinstance(callback, IterationProgress) else callback
        for callback in standard_callbacks()
    ]
    method = DoubleOverparameterization(filter=DetectAndFill(ExtremeValues(), NormalisedConvolution()))
    fit(tmp_path, method, images(noise=None, resize=40, tile=tile), 1, callbacks=callbacks)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "take" in line] == said
    assert lines[-1].startswith("100 %, 0:00:00 left")
