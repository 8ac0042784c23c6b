"""The examples of docs/extending.md run from outside the package, named by class_path, and pass the shared suites."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dop_lightning.model.corruption import Corruption
from dop_lightning.model.operators import Operator
from dop_lightning.model.signals import Signal
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.contributing.examples.cosine_series import CosineSeries
from tests.contributing.examples.cubic_corruption import CubicCorruption
from tests.contributing.examples.every_other_row import EveryOtherRow, Interlaced
from tests.documents.harness import DOCS, ROOT, Block, blocks
from tests.suites.corruption import CorruptionSuite
from tests.suites.operator import OperatorSuite
from tests.suites.part import draw
from tests.suites.signal import SignalSuite

EXAMPLES = Path(__file__).parent / "examples"
PAGE = DOCS / "extending.md"

MODULES = re.findall(r"^`(\w+)\.py`:$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
PARTS = dict(zip(MODULES, zip(blocks(PAGE, "python"), blocks(PAGE, "yaml"), strict=True), strict=True))
"""Code and settings by the name of the module."""

TINY = {
    "image": ["--data.resize", "16", "--model.signal.init_args.width", "4", "--model.signal.init_args.scales", "2"],
    "superresolution": ["--data.resize", "16", "--model.signal.init_args.width", "4"],
    "matrix": ["--data.n", "12", "--data.rank", "1", "--data.seeds", "2"],
}
RUN = ["--model.block", "5", "--model.evaluate_every", "5", "--trainer.max_steps", "10", "--trainer.accelerator", "cpu"]


def test_each_example_is_on_the_page() -> None:
    assert sorted(PARTS) == sorted(file.stem for file in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("module", PARTS)
def test_the_page_quotes_the_file(module: str) -> None:
    assert PARTS[module][0].code == (EXAMPLES / f"{module}.py").read_text(encoding="utf-8")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path, in which the package is not."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in PARTS:
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


@pytest.mark.parametrize("module", PARTS)
def test_an_example_fits_by_its_class_path(module: str, outside: Path, dop) -> None:
    code, settings = PARTS[module]
    (outside / f"{module}.py").write_text(code.code, encoding="utf-8")
    (outside / "mine.yaml").write_text(settings.code, encoding="utf-8")
    base = base_of(settings)
    own_signal = "signal" in yaml.safe_load(settings.code).get("model", {})
    tiny = [*TINY[base][:2], *([] if own_signal else TINY[base][2:])]
    command = ["fit", "--config", f"configs/{base}.yaml", "--config", "mine.yaml", *tiny, *RUN]
    said = dop(*command, "--trainer.default_root_dir", "run")
    assert said.status == 0, said.err
    saved = (outside / "run" / "config.yaml").read_text(encoding="utf-8")
    assert re.search(rf"class_path: {module}\.\w+", saved)
    results = [json.loads(file.read_text(encoding="utf-8")) for file in outside.glob("run/*/result.json")]
    assert results
    check(module, results, outside / "run")
    sys.modules.pop(module)


def base_of(settings: Block) -> str:
    """The config that comes before the settings, by their first line."""
    found = re.match(r"# after configs/(\w+)\.yaml$", settings.first_line)
    assert found is not None, settings.first_line
    return found[1]


def check(module: str, results: list[dict[str, Any]], run: Path) -> None:
    """Files of a run that an example adds, in addition to its class path."""
    statuses = {"stable"} if module == "loss_stopping" else {"done"}
    assert {result["status"] for result in results} == statuses
    if module == "dead_columns":
        assert results[0]["attributes"]["noise"] == "dead_columns"
    if module == "every_other_row":
        assert results[0]["attributes"]["sensing"] == "interlaced"
    if module == "edge_error":
        assert {"edge_error", "variation_rows", "variation_columns", "rmse"} <= results[0].keys()
        assert results[0]["higher_is_better"] == {"edge_error": False, "rmse": False}
    if module == "run_log":
        lines = (run / "ended.txt").read_text(encoding="utf-8").splitlines()
        assert sorted(lines) == sorted(f"{result['problem']}: done after 10 iterations" for result in results)


class TestCosineSeries(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (2, 6, 8)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return CosineSeries(problems, terms=3, scale=0.3)


class TestEveryOtherRow(OperatorSuite):
    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        observation = draw(seed, (2, 3, 6)).to(dtype)
        return Problem(name, observation, seed=seed, signal_shape=(2, 5, 6), sensing=Interlaced())

    def make(self, problems: ProblemBatch) -> Operator:
        return EveryOtherRow(problems)


class TestCubicCorruption(CorruptionSuite):
    test_start_differs_between_seeds = None  # nothing is drawn

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (4, 5)), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return CubicCorruption(problems, scale=0.3)
