"""The threads of ``dop recover``: fewer on a busy machine, and the same when a run is resumed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.cli.main import main
from dop_lightning.foundation import threads

COMMAND = ["recover", "photo.png", "--out", "out", "--width", "2", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three cores, two of which are idle, and a photograph."""
    before = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 3)
    monkeypatch.setattr(threads, "measure_idle_cores", lambda enough: 2.0)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    yield
    torch.set_num_threads(before)


def recorded() -> list[int]:
    manifest = json.loads(Path("out/manifest.json").read_text())
    result = json.loads(Path("out/photo/result.json").read_text())
    return [manifest["threads"], result["machine"]["threads"]]


def test_fewer_threads_are_reported_recorded_and_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*COMMAND, "--iterations", "2"]) == 0
    assert "Using 2 threads on 3 cores, because other processes leave 2.0 idle" in capsys.readouterr().err
    assert recorded() == [2, 2]
    monkeypatch.setattr(threads, "measure_idle_cores", lambda enough: pytest.fail("it was measured again"))
    assert main([*COMMAND, "--iterations", "3"]) == 0
    assert "Using 2 threads on 3 cores, as at the start of the run" in capsys.readouterr().err
    assert recorded() == [2, 2]


def test_a_number_that_the_user_sets_overrides_that_of_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*COMMAND, "--iterations", "2"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main([*COMMAND, "--iterations", "3"]) == 0
    assert "Using" not in capsys.readouterr().err
    assert recorded() == [2, 1]  # of the start, and of this process
