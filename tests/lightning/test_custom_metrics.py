"""Metrics of the user in whole runs: from Python and from YAML, each place where their scores appear read back."""

import copy
import csv
import io
import json
import math
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torchmetrics import MeanAbsoluteError

from dop_lightning.engine.convex import InexactALM
from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.problems.problem import Problem
from tests.runs.builders import Page

CODE = '''
class Scaled:
    """The mean error, scaled."""

    higher_is_better = False

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, signal, truth):
        return self.factor * (signal - truth).abs().mean()


def spread(signal, problem):
    return {"of": signal.std(), "by": {"name": float(len(problem.name))}, "never": float("nan")}


def fails(signal):
    raise RuntimeError("no way")
'''

YAML = """
model:
  metrics:
    edge_ssim:
      class_path: torchmetrics.image.MultiScaleStructuralSimilarityIndexMeasure
      init_args: {data_range: 1.0, kernel_size: 3, betas: [0.5, 0.5]}
    scaled: {class_path: own_metrics.Scaled, init_args: {factor: 10.0}}
    spread: own_metrics.spread
"""

IMAGE = ["--config", "configs/image.yaml", "--data.resize", "16", "--model.signal.init_args.width", "4",
         "--model.signal.init_args.scales", "2", "--model.tau", "0.1", "--model.alpha", "20", "--model.block", "5",
         "--model.evaluate_every", "10", "--trainer.accelerator", "cpu"]  # fmt: skip
MATRIX = ["--config", "configs/matrix.yaml", "--data.n", "12", "--data.rank", "1", "--data.seeds", "2",
          "--model.block", "5", "--model.evaluate_every", "10", "--trainer.accelerator", "cpu"]  # fmt: skip

TAGS = ["edge_ssim", "scaled", "spread_of", "spread_by_name"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module and settings, where a reader of the documents works."""
    (tmp_path / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    (tmp_path / "own_metrics.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(YAML, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_metrics", raising=False)
    return tmp_path


def results(run: Path) -> dict[str, dict[str, Any]]:
    read = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(run.glob("*/result.json"))]
    return {result["problem"]: result for result in read}


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def curve(run: Path, problem: str, tag: str) -> list[tuple[int, float]]:
    rows = table((run / "metrics.csv").read_text(encoding="utf-8"))
    return [(int(r["iteration"]), float(r["value"])) for r in rows if (r["problem"], r["tag"]) == (problem, tag)]


# --------------------------------------------------------------------------------------------------- the command line


def test_scores_of_images_are_everywhere(mine: Path, dop) -> None:
    images = ["--data.images", "[camera, coffee]", "--trainer.max_steps", "25"]
    said = dop("fit", *IMAGE, "--config", "mine.yaml", *images, "--trainer.default_root_dir", "run")
    assert said.status == 0, said.err
    found = results(mine / "run")
    assert len(found) == 2
    for name, result in found.items():
        assert [key for key in result if key in TAGS] == TAGS
        assert result["spread_by_name"] == len(name)
        assert result["higher_is_better"] == {"edge_ssim": True, "scaled": False}
        assert "spread_never" not in result
        events = EventAccumulator(str(mine / "run" / name)).Reload()
        for tag in TAGS:
            values = curve(mine / "run", name, tag)
            assert [iteration for iteration, _ in values] == [10, 20, 25]
            assert values[-1][1] == pytest.approx(result[tag], rel=1e-5)
            shown = [(event.step, event.value) for event in events.Scalars(tag)]
            assert shown == [(iteration, pytest.approx(value, rel=1e-5)) for iteration, value in values]
    assert len({result["edge_ssim"] for result in found.values()}) == 2

    of_run = table((mine / "run" / "results.csv").read_text(encoding="utf-8"))
    assert list(of_run[0])[-4:] == TAGS
    for row in of_run:
        expected = [found[row["problem"]][tag] for tag in TAGS]
        assert [float(row[tag]) for tag in TAGS] == pytest.approx(expected, rel=1e-4)

    header, first, *_ = said.out.splitlines()
    assert header.split()[-4:] == TAGS
    assert first.split()[-4:] == [format(found[first.split()[0]][tag], ".4g") for tag in TAGS]
    mean = sum(result["scaled"] for result in found.values()) / 2
    assert f"mean scaled: {mean:.4g}" in said.out

    assert dop("table", "run").out.splitlines()[1].split()[-4:] == first.split()[-4:]
    assert dop("table", "run", "--markdown").out.splitlines()[0].endswith(f"| {' | '.join(TAGS)} |")
    assert list(table(dop("table", "run", "--csv", "-").out)[0])[-4:] == TAGS
    assert f"{'edge_ssim'}_std" in table(dop("table", "run", "--mean", "--csv", "-").out)[0]

    assert dop("report", "run").status == 0
    page = Page((mine / "run" / "report.html").read_text(encoding="utf-8"))
    assert [text for text in page.text("span", class_="title") if text in TAGS] == TAGS * 3
    assert page.text("th", class_="n")[-4:] == TAGS

    for verb in ("validate", "test"):
        scored = dop(verb, "--config", "run/config.yaml")
        assert scored.out.splitlines()[0].split()[-4:] == TAGS
        assert scored.out.splitlines()[1].split()[-4:] == first.split()[-4:]


def test_scores_of_matrices_by_a_list_on_the_command_line(mine: Path, dop) -> None:
    own = ["--model.metrics+", "torchmetrics.PearsonCorrCoef", "--model.metrics+", "own_metrics.spread"]
    said = dop("fit", *MATRIX, *own, "--trainer.max_steps", "10", "--trainer.default_root_dir", "run")
    assert said.status == 0, said.err
    for result in results(mine / "run").values():
        assert -1 <= result["pearson_corr_coef"] <= 1
        assert result["spread_of"] > 0
    assert "pearson_corr_coef: " in said.out
    saved = (mine / "run" / "config.yaml").read_text(encoding="utf-8")
    assert "class_path: torchmetrics.PearsonCorrCoef" in saved
    assert "- own_metrics.spread" in saved


def test_metric_added_later_scores_unfinished_problems(mine: Path, dop) -> None:
    end = ["--trainer.default_root_dir", "run", "--trainer.max_steps"]
    assert dop("fit", *MATRIX, *end, "10").status == 0
    first = results(mine / "run")
    own = ["--model.metrics.scaled", "own_metrics.Scaled"]
    assert dop("fit", *MATRIX, *own, *end, "10").status == 0, "the same run: nothing that is recovered changes"
    assert results(mine / "run") == first
    assert "scaled" not in dop("table", "run").out
    scored = dop("test", "--config", "run/config.yaml", *own)  # finished problems, by the new metric
    assert scored.out.splitlines()[0].split()[-1] == "scaled"
    assert dop("fit", *MATRIX, *own, *end, "20").status == 0
    name, result = next(iter(results(mine / "run").items()))
    assert curve(mine / "run", name, "scaled") == [(20, pytest.approx(result["scaled"], rel=1e-5))]
    assert [iteration for iteration, _ in curve(mine / "run", name, "loss")] == [10, 20]


def test_a_problem_that_ended_before_the_metric_has_an_empty_cell(mine: Path, dop) -> None:
    end = ["--trainer.default_root_dir", "run", "--trainer.max_steps", "10"]
    own = ["--model.metrics.scaled", "own_metrics.Scaled"]
    assert dop("fit", *MATRIX, *own, *end).status == 0
    (mine / "run").rename(mine / "with")
    assert dop("fit", *MATRIX, *end).status == 0
    (mine / "run").rename(mine / "without")
    rows = table(dop("table", "with", "without", "--each", "--csv", "-").out)
    assert [row["scaled"] != "" for row in rows] == [True, True, False, False]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["--model.metrics.ssim", "own_metrics.spread"], "metrics: the tag 'ssim' is reserved; use another one"),
        (["--model.metrics.noise", "own_metrics.Scaled"], "metrics: 'noise' is an attribute of problem 'n12-r1-"),
        (["--model.metrics.own", "own_metrics.other"], "own_metrics.other"),
        (["--model.metrics.own", "textwrap.dedent"], "must take arguments named signal, truth, corruption, "),
    ],
)
def test_mistakes_give_one_line_before_the_run(setting: list[str], message: str, mine: Path, dop) -> None:
    said = dop("fit", *MATRIX, *setting, "--trainer.max_steps", "10", "--trainer.default_root_dir", "run")
    *_, last = said.err.splitlines()
    assert said.status == 2
    assert last.startswith("dop fit: error: ")
    assert message in last
    assert not list(mine.glob("run/*/result.json"))
    assert dop("fit", *MATRIX, "--trainer.max_steps", "5", "--trainer.default_root_dir", "run").status == 0


def test_failing_metric_shows_its_traceback(mine: Path, dop) -> None:
    said = dop("fit", *MATRIX, "--model.metrics.own", "own_metrics.fails", "--trainer.max_steps", "10")
    assert said.status == 1
    assert "own_metrics.py" in said.err
    assert said.err.splitlines()[-1].startswith("metrics: 'own' (fails) failed on problem 'n12-r1-")
    assert not list(mine.glob("**/result.json"))


# ---------------------------------------------------------------------------------------------------------- in Python


def mean_error(signal: Tensor, truth: Tensor) -> Tensor:
    return (signal - truth).abs().mean()


class Seen(pl.Callback):
    """A stock callback, which reads ``trainer.callback_metrics``."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        value = trainer.callback_metrics.get("mean_error")
        if value is not None and (not self.values or float(value) != self.values[-1]):
            self.values.append(float(value))


def test_means_reach_callback_metrics_and_loggers(fit, matrix_method, matrices, tmp_path: Path) -> None:
    module = matrix_method(metrics={"mean_error": mean_error})
    seen, logger = Seen(), CSVLogger(tmp_path, "logs")
    run = fit(tmp_path, module, matrices(), 400, seen, logger=logger, log_every_n_steps=1)
    expected = []
    for iteration in (200, 400):
        values = [float(row[3]) for row in run.metrics if row[1:3] == (iteration, "mean_error")]
        assert len(values) == 3
        expected.append(sum(values) / 3)
    assert seen.values == pytest.approx(expected, rel=1e-5)
    assert module.mean_scores["mean_error"] == pytest.approx(expected[-1], rel=1e-5)
    logged = table((Path(logger.log_dir) / "metrics.csv").read_text(encoding="utf-8"))
    last = [row["mean_error"] for row in logged if row["mean_error"]][-1]
    assert float(last) == pytest.approx(expected[-1], rel=1e-5)


def test_metrics_do_not_change_results(fit, image_method, images, tmp_path: Path) -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Conv2d(1, 1, 3)

        def forward(self, preds: Tensor) -> Tensor:
            return self.inner(preds + torch.rand_like(preds)).mean()

    plain = fit(tmp_path / "plain", image_method(), images(), 60)
    module = image_method(metrics={"network": Network(), "torch": MeanAbsoluteError(), "mean_error": mean_error})
    more = fit(tmp_path / "more", module, images(), 60)
    for name in plain.table:
        assert (plain.recovered(name) == more.recovered(name)).all()
        assert math.isfinite(float(more.table[name]["network"]))
    assert not any("inner" in name or "metrics" in name for name, _ in module.named_modules())
    assert not any("inner" in name for name, _ in module.named_parameters())
    assert plain.states().keys() == more.states().keys()


def test_without_truth_a_metric_that_needs_it_is_missing(fit, matrix_method, tmp_path: Path) -> None:
    np.save(tmp_path / "observed.npy", np.random.default_rng(0).standard_normal((12, 12)))
    data = MatrixDataModule(files=str(tmp_path / "observed.npy"), noise=None)
    own = {"mean_error": mean_error, "error": MeanAbsoluteError(), "largest": lambda signal: signal.abs().max()}
    run = fit(tmp_path / "run", matrix_method(metrics=own), data, 200)
    (row,) = run.table.values()
    assert float(row["largest"]) > 0
    assert "mean_error" not in row
    assert {tag for _, _, tag, _ in run.metrics} == {"loss", "corruption_density", "largest"}


def test_an_image_in_tiles_is_scored_as_a_whole(fit, image_method, images, tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def shape(signal: Tensor) -> float:
        shapes.append(tuple(signal.shape))
        return float(signal.shape[-1])

    data = partial(images, crop=[20, 28], resize=None, tile=12, overlap=4, batch_size=2)
    module = image_method(metrics={"columns": shape, "mean_error": mean_error})
    run = fit(tmp_path, module, data(), 20)
    ((name, row),) = run.table.items()
    assert float(row["columns"]) == 28
    truth = next(iter(run.data.mosaics.values())).whole.truth
    assert truth is not None
    expected = float((torch.from_numpy(run.recovered(name)) - truth).abs().mean())
    assert float(row["mean_error"]) == pytest.approx(expected, rel=1e-4)
    assert set(shapes) == {(1, 12, 12), (1, 20, 28)}
    assert module.outcome_of(name).scores["mean_error"] == pytest.approx(expected, rel=1e-5)


def test_convex_program_supports_metrics(fit, tmp_path: Path) -> None:
    own = {"mean_error": mean_error, "s": lambda corruption: corruption.sum()}
    module = DoubleOverparameterization(solver=InexactALM, evaluate_every=10, metrics=own)
    data = MatrixDataModule(n=12, rank=1, noise=GrossOutliers(0.1), seeds=2)
    run = fit(tmp_path, module, data, 50)
    assert all(float(row["mean_error"]) < 0.1 for row in run.table.values())
    assert all(row["s"] for row in run.table.values())


def test_a_module_with_metrics_is_copied_and_pickled(matrix_method) -> None:
    module = matrix_method(metrics={"error": MeanAbsoluteError(), "mean_error": mean_error})
    problem, known = Problem("a", torch.zeros(2, 2)), {"signal": torch.ones(2, 2), "truth": torch.zeros(2, 2)}
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.metrics.scores(problem, known) == {"error": 1.0, "mean_error": 1.0}
        assert other.metrics is not module.metrics


def test_used_tag_is_refused_when_the_module_is_created() -> None:
    with pytest.raises(ValueError, match="the tag 'relative_error' is reserved"):
        DoubleOverparameterization(metrics={"relative_error": mean_error})
