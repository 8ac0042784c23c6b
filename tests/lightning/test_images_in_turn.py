"""Runs with a limited number of active images: results, memory, resuming."""

from pathlib import Path

import pytest
import pytorch_lightning as pl

from dop_lightning.engine import runners
from dop_lightning.lightning.callbacks import checkpoint
from dop_lightning.lightning.checkpoint_io import StateInFile
from tests.suites.turns import Follow

DATA = {"seeds": 6, "batch_size": 1}


@pytest.fixture(scope="module")
def all_at_once(fit, image_method, images, tmp_path_factory):
    follow = Follow()
    run = fit(tmp_path_factory.mktemp("all") / "run", image_method(), images(**DATA), 20, follow)
    assert set(follow.at_work) == {6}
    return run


@pytest.fixture
def in_turn(monkeypatch) -> None:
    monkeypatch.setattr(runners, "TILES_AT_WORK", 4)
    monkeypatch.setattr(checkpoint, "MAX_KEPT", 2)


@pytest.mark.usefixtures("in_turn")
def test_some_images_at_a_time_give_the_same_results(fit, image_method, images, all_at_once, tmp_path: Path) -> None:
    follow = Follow()
    run = fit(tmp_path, image_method(), images(**DATA), 20, follow)
    assert max(follow.at_work) == 4
    run.assert_equals(all_at_once)
    assert all(isinstance(record.state, StateInFile) for record in run.module.records.values())
    assert list(run.module.parameters()) == []  # those in memory
    expected = all_at_once.module.state_dict()
    assert run.module.state_dict().keys() == expected.keys()
    assert all((tensor == expected[key]).all() for key, tensor in run.module.state_dict().items())
    name = next(iter(run.module.records))
    assert (run.module.recovered(name).signal == all_at_once.module.recovered(name).signal).all()


@pytest.mark.usefixtures("in_turn")
def test_an_interrupted_run_continues(fit, image_method, images, all_at_once, tmp_path: Path) -> None:
    stopped = fit(tmp_path / "run", image_method(), images(**DATA), 20, Follow(9))
    assert {record.iteration for record in stopped.module.records.values()} == {0, 10, 20}
    follow = Follow()
    resumed = fit(tmp_path / "run", image_method(), images(**DATA), 20, follow, resume=True)
    assert max(follow.at_work) <= 4
    resumed.assert_equals(all_at_once)


@pytest.mark.usefixtures("in_turn")
def test_a_trainer_without_a_checkpoint_folder_works_on_all_images(image_method, images, tmp_path: Path) -> None:
    module, follow = image_method(), Follow()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = pl.Trainer(max_steps=10, accelerator="cpu", callbacks=[follow], default_root_dir=tmp_path, **options)
    trainer.fit(module, datamodule=images(**DATA))
    assert set(follow.at_work) == {6}
    assert len(list(module.parameters())) > 0
