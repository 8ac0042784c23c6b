"""The script that measures how well calibrated the probability of corruption is."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dop_lightning.engine.steps import Refinement
from dop_lightning.images.presets import PRESETS

SCRIPT = "measure_calibration"

Measure = Callable[..., str]


@pytest.fixture
def script(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a small preset."""
    monkeypatch.setattr(script, "PRESETS", {"quick": replace(PRESETS["quick"], width=2, iterations=20)})
    monkeypatch.setattr(Refinement, "reveal", lambda rule, state, k: 5)
    monkeypatch.setattr(Refinement, "__init__", lambda rule, *_, make=Refinement.__init__, **__: make(rule, every=5))
    return script


@pytest.fixture
def measure(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Measure:
    """Runs it, and returns what it prints."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["measure_calibration.py", *arguments])
        script.main()
        return capsys.readouterr().out

    return run


def test_measurement_resumes(measure: Measure, tmp_path: Path) -> None:
    out = tmp_path / "calibration.csv"
    case = ["--out", str(out), "--size", "16", "--levels", "0.3", "--noise", "salt-and-pepper"]
    measure(*case, "--images", "coffee")
    before = out.read_text(encoding="utf-8")
    said = measure(*case, "--images", "coffee", "camera")
    assert out.read_text(encoding="utf-8").startswith(before)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 3
    scores = r"( \| [01]\.\d+ \([01]\.\d+\)){2}( \| [01]\.\d+){2} \|"
    row = rf"^\| quick, 16 \| salt and pepper 30% \| coffee, camera \| 0\.\d+{scores}$"
    assert re.search(row, said, re.MULTILINE), said
    assert measure("--out", str(out), "--table") == said


def test_scores_follow_their_definitions(script: ModuleType) -> None:
    p = torch.tensor([0.0, 0.02, 0.5, 0.5, 1.0])
    happened = torch.tensor([False, True, True, False, True])
    # bins of 1/15: {0, 0.02}, {0.5, 0.5}, {1}
    assert script.calibration_error(p, happened) == pytest.approx(2 / 5 * (0.5 - 0.01))
    assert script.brier_score(p, happened) == pytest.approx((0.98**2 + 2 * 0.25) / 5)
