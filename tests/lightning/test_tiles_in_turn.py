"""Runs with a limited number of active tiles: results, memory, interruption and resuming."""

from pathlib import Path

import pytest

from dop_lightning.engine import runners
from dop_lightning.lightning.callbacks import checkpoint
from dop_lightning.lightning.checkpoint_io import StateInFile
from tests.suites.turns import Follow

DATA = {"noise": None, "resize": 56, "tile": 24}
"""Nine tiles."""


@pytest.fixture
def in_turn(monkeypatch) -> None:
    monkeypatch.setattr(runners, "TILES_AT_WORK", 4)
    monkeypatch.setattr(checkpoint, "MAX_KEPT", 2)


@pytest.fixture(scope="module")
def all_at_once(fit, image_method, images, tmp_path_factory):
    follow = Follow()
    run = fit(tmp_path_factory.mktemp("all") / "run", image_method(), images(**DATA), 20, follow)
    assert set(follow.at_work) == {9}
    return run


@pytest.mark.usefixtures("in_turn")
def test_some_tiles_at_a_time_give_the_same_results(fit, image_method, images, all_at_once, tmp_path: Path) -> None:
    follow = Follow()
    run = fit(tmp_path, image_method(), images(**DATA), 20, follow)
    assert max(follow.at_work) == 4
    run.assert_equals(all_at_once)
    assert run.trainer.global_step == 20


@pytest.mark.usefixtures("in_turn")
def test_the_states_of_ended_tiles_are_in_files(fit, image_method, images, all_at_once, tmp_path: Path) -> None:
    run = fit(tmp_path, image_method(), images(**DATA), 20)
    assert run.module.roster.resting == []
    states = [record.state for record in run.module.records.values()]
    assert all(isinstance(state, StateInFile) for state in states)
    name = next(iter(run.module.records))
    assert (run.module.recovered(name).signal == all_at_once.module.recovered(name).signal).all()
    assert run.module.state_dict().keys() == all_at_once.module.state_dict().keys()


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize("blocks", [1, 5, 9, 14])
def test_an_interrupted_run_continues(blocks: int, fit, image_method, images, all_at_once, tmp_path: Path) -> None:
    stopped = fit(tmp_path / "run", image_method(), images(**DATA), 20, Follow(blocks))
    assert sum(record.iteration for record in stopped.module.records.values()) == 10 * blocks
    follow = Follow()
    resumed = fit(tmp_path / "run", image_method(), images(**DATA), 20, follow, resume=True)
    assert max(follow.at_work) <= 4
    resumed.assert_equals(all_at_once)


@pytest.mark.usefixtures("in_turn")
def test_an_ended_run_continues_with_more_iterations(fit, image_method, images, all_at_once, tmp_path: Path) -> None:
    fit(tmp_path / "run", image_method(), images(**DATA), 10)
    resumed = fit(tmp_path / "run", image_method(), images(**DATA), 20, resume=True)
    resumed.assert_equals(all_at_once)
