"""``dop sweep --cluster ray`` against ``dop sweep``."""

from pathlib import Path

import pytest

from tests.integrations.ray.builders import assert_equal, end, start, write_config

pytest.importorskip("ray")

SWEEP = ["sweep", "--config", "config.yaml", "--axis", "model.alpha=20,40", "--trainer.max_steps", "60", "--out"]

KILLER = """
import os, signal
from pathlib import Path
import pytorch_lightning as pl

class Killer(pl.Callback):
    def __init__(self, deaths: int) -> None:
        self.deaths = deaths

    def on_train_batch_end(self, trainer, *args):
        if Path(trainer.default_root_dir).name != "alpha-20":
            return
        for number in range(self.deaths):
            try:
                Path(f"death-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getppid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_config(tmp_path, seeds=1)
    (tmp_path / "killer.py").write_text(KILLER)
    return tmp_path


def test_points_equal_those_of_this_machine(folder: Path) -> None:
    end(start(*SWEEP, "local", folder=folder))
    said = end(start(*SWEEP, "ray", "--cluster", "ray", folder=folder))
    assert sorted(said.splitlines()) == ["alpha-20: finished", "alpha-40: finished"]
    for point in ("alpha-20", "alpha-40"):
        assert_equal(folder / "local" / point, folder / "ray" / point, 2)


def killing(deaths: int) -> list[str]:
    callback = f"[{{class_path: killer.Killer, init_args: {{deaths: {deaths}}}}}]"
    return ["--cluster", "ray", "--jobs", "1", "--trainer.callbacks", callback]


def test_point_resumes_in_another_worker(folder: Path) -> None:
    said = end(start(*SWEEP, "once", *killing(1), folder=folder))
    assert said.count("died with its Ray worker process; started again") == 1


def test_point_is_skipped_after_the_second_death(folder: Path) -> None:
    said = end(start(*SWEEP, "twice", *killing(2), folder=folder), 1)
    assert "alpha-20: two processes died while they worked on it, the last one died with its Ray worker" in said
    assert "alpha-40: finished" in said
