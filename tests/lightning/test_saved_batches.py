"""The batches that a checkpoint folder receives."""

from pathlib import Path

import pytest
import pytorch_lightning as pl

from dop_lightning.lightning.recovery_callback import RecoveryCallback


class StopWithin(RecoveryCallback):
    """Stops a run within the first block of all batches, after that of some of them."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_block(self, trainer: pl.Trainer, module, state, iterations: int) -> None:
        self.batches -= 1
        if self.batches == 0:
            module.stopped_by = "SIGINT"
            trainer.should_stop = True


@pytest.mark.parametrize("begun", [1, 2])
def test_tiles_that_have_not_started_start_fresh(begun: int, fit, image_method, images, tmp_path: Path) -> None:
    data = {"noise": None, "resize": 40, "tile": 24}
    stopped = fit(tmp_path / "run", image_method(), images(**data), 30, StopWithin(begun))
    assert sorted(record.iteration for record in stopped.module.records.values()) == [0] * (4 - begun) + [10] * begun
    assert len(stopped.states()) == begun
    resumed = fit(tmp_path / "run", image_method(), images(**data), 30, resume=True)
    undisturbed = fit(tmp_path / "other", image_method(), images(**data), 30)
    resumed.assert_equals(undisturbed)


def test_one_batch_is_copied_at_a_time(fit, image_method, images, tmp_path: Path, monkeypatch) -> None:
    run = fit(tmp_path, image_method(), images(noise=None, resize=40, tile=24), 10)
    batches = run.module.saved_batches()
    copied = []
    save_batch = type(run.module.roster).save_batch
    monkeypatch.setattr(
        type(run.module.roster), "save_batch", lambda roster, label: copied.append(label) or save_batch(roster, label)
    )
    assert list(batches) == run.module.roster.labels
    assert copied == []
    next(iter(batches.items()))
    assert copied == run.module.roster.labels[:1]
