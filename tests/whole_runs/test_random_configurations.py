"""More than 300 random configurations: each runs to its end and leaves all its files, or a ValueError refuses it."""

import csv
import json
import math
import re
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
from hypothesis import HealthCheck, Phase, event, given, settings

import dop_lightning
from dop_lightning.lightning.data import RecoveryDataModule
from dop_lightning.lightning.data.images import ImageFile
from tests.suites.configurations import Configuration, configurations
from tests.suites.draws_of_data import write_files

PACKAGE = Path(dop_lightning.__file__).parent


def assert_clear(error: ValueError, configuration: Configuration) -> None:
    """An intended error: raised by a ``raise`` of this package, with one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert PACKAGE in Path(last.filename).parents, f"{last.filename}:{last.lineno}: {error}"
    assert (last.line or "").startswith("raise "), f"{last.filename}:{last.lineno}: {error}"
    message = str(error)
    assert message.strip()
    assert message.isprintable(), message
    assert configuration.names() & set(re.findall(r"\w+", message)), message


def assert_complete(run: Path, data: RecoveryDataModule, max_steps: int) -> None:
    """Every problem has ended, and has its files."""
    for whole in data.wholes:
        folder = run / whole.folder
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        assert result["problem"] == whole.name
        assert result["status"] in ("done", "stable", "diverged"), result
        assert 0 <= result["iterations"] <= max_steps, result
        recovered = np.load(folder / "recovered.npy")
        if isinstance(whole.source, ImageFile) and whole.source.path.suffix == ".npy":
            assert recovered.size == math.prod(whole.signal_shape)  # it has the axes of the file
        else:
            assert recovered.shape == whole.signal_shape
        assert np.isfinite(recovered).all()
    with (run / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [row["problem"] for row in csv.DictReader(file)] == sorted(whole.name for whole in data.wholes)


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_a_configuration_runs_or_is_refused(
    tmp_path: Path, make_trainer: Callable[..., pl.Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "inputs")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    around = sorted(tmp_path.rglob("*"))
    became: Counter[str] = Counter()
    seen: set[str] = set()

    @settings(
        max_examples=450,  # Hypothesis follows each up by variations of it, and by some that are the same
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(configurations())
    def try_one(configuration: Configuration) -> None:
        if repr(configuration) in seen:
            return
        run = tmp_path / "run"
        try:
            data = configuration.data_module(tmp_path / "inputs")
            module = configuration.module(len(data.problems))
            trainer = make_trainer(run, configuration.max_steps, callbacks=configuration.callbacks())
            trainer.fit(module, datamodule=data)
        except ValueError as error:
            outcome = "refused"
            assert_clear(error, configuration)
        else:
            outcome = "ran"
            assert_complete(run, data, configuration.max_steps)
        finally:
            shutil.rmtree(run, ignore_errors=True)
        event(outcome)
        became[outcome] += 1
        seen.add(repr(configuration))
        assert sorted(tmp_path.rglob("*")) == around  # nothing outside of the folder of the run

    try_one()
    assert became.total() >= 300
    assert became["ran"] >= became.total() / 3, became
