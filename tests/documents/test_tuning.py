"""The study of docs/tuning.md, run as it stands."""

import re
from pathlib import Path

import optuna
import pytest

from tests.documents.harness import DOCS, blocks, run_python

PAGE = DOCS / "tuning.md"


def test_a_study_over_alpha_and_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(PAGE, "python")
    found: dict[str, object] = {}
    said = run_python(block, PAGE, found)
    best = re.search(r"{'alpha': ([\d.]+), 'width': (\d+)} ([\d.]+)$", said.strip())
    assert best is not None, said
    study = found["study"]
    assert isinstance(study, optuna.Study)
    assert 5 <= float(best[1]) <= 500
    assert float(best[3]) == max(trial.value for trial in study.trials if trial.state.name == "COMPLETE") > 15
    assert len(study.trials) == 6
    for trial in study.trials:
        assert trial.state.name in ("COMPLETE", "PRUNED")
        assert trial.intermediate_values
        assert all(step % 20 == 0 for step in trial.intermediate_values)
