"""The HPARAMS tab, as TensorBoard's own code makes it of the event files."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

from dop_lightning.engine.convex import InexactALM
from dop_lightning.lightning.callbacks import VarianceStopping
from dop_lightning.lightning.loggers.hparams import session_start
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.problems.scoring import CURVES

SUCCESS, FAILURE, UNKNOWN = api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN


class Tab:
    """What the tab shows of a run."""

    def __init__(self, run: Path) -> None:
        events = EventMultiplexer().AddRunsFromDirectory(str(run)).Reload()
        context = Context(TBContext(data_provider=MultiplexerDataProvider(events, str(run))))
        everything = api_pb2.ListSessionGroupsRequest(
            start_index=0, slice_size=100, allowed_statuses=[SUCCESS, FAILURE, UNKNOWN]
        )
        arguments = (RequestContext(), context, "")
        self.runs = set(events.Runs())
        self.columns = list(get_experiment.Handler(*arguments, api_pb2.GetExperimentRequest()).run().hparam_infos)
        self.rows = {row.name: row for row in list_session_groups.Handler(*arguments, everything).run().session_groups}

    def settings(self, name: str) -> dict[str, object]:
        values = self.rows[name].hparams
        return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}

    def scores(self, name: str) -> dict[str, float]:
        return {metric.name.tag: metric.value for metric in self.rows[name].metric_values}

    def status(self, name: str) -> int:
        (session,) = self.rows[name].sessions
        return session.status

    def assert_is_table(self, run: Path) -> None:
        """The scores of each row are those of its result."""
        for name in self.rows:
            result = json.loads((run / name / "result.json").read_text(encoding="utf-8"))
            expected = {tag: result[tag] for tag in CURVES if tag in result}
            found = {tag: value for tag, value in self.scores(name).items() if tag in CURVES}
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-7), name


def test_each_problem_has_a_row_with_settings_and_final_scores(fit, matrix_method, matrices, tmp_path: Path) -> None:
    noise = [GrossOutliers(0.1), GrossOutliers(0.2)]
    run = fit(tmp_path, matrix_method(), matrices(noise=noise, seeds=2), 300)
    tab = Tab(tmp_path)
    assert tab.runs == set(tab.rows) == set(run.table)  # no run beside that of a problem
    for problem in run.data.problems:
        settings = tab.settings(problem.name)
        method = {key: settings.pop(key) for key in list(settings) if isinstance(settings[key], str)}
        assert settings == pytest.approx(
            {"n": 12, "true_rank": 1, "ratio": problem.attributes["ratio"], "seed": problem.seed}
            | {"std": problem.attributes["std"], "tau": 2e-3, "alpha": math.sqrt(12)}
        )
        assert method == {
            "noise": "gross_outliers",
            "signal": "SymmetricFactor",
            "corruption": "HadamardCorruption",
            "operator": "Identity",
            "loss_function": "SquaredLoss",
            "steps": "GradientDescent",
            "optimizer": "DiscrepantSGD",
        }
        assert tab.status(problem.name) == SUCCESS
    tab.assert_is_table(tmp_path)
    assert {column.name for column in tab.columns[:2]} == {"ratio", "seed"}  # what differs comes first


def test_resumed_problem_equals_an_undisturbed_one(fit, matrix_method, matrices, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    fit(plain, matrix_method(), matrices(), 500)
    for at in (100, 400, 500):
        fit(tmp_path / "resumed", matrix_method(), matrices(), at, resume=at > 100)
    once, again = Tab(plain), Tab(tmp_path / "resumed")
    assert again.columns == once.columns
    for name in once.rows:
        assert again.settings(name) == once.settings(name)
        assert again.scores(name) == pytest.approx(once.scores(name))
        assert again.status(name) == SUCCESS
    again.assert_is_table(tmp_path / "resumed")


def test_interrupted_problem_has_no_end_until_resumed(fit, stop_at, matrix_method, matrices, tmp_path: Path) -> None:
    method, data = partial(matrix_method, evaluate_every=300), partial(matrices, seeds=1)
    run = fit(tmp_path, method(), data(), 500, stop_at(200))
    (name,) = run.table
    assert run.statuses == ["interrupted"]
    tab = Tab(tmp_path)
    assert tab.status(name) == UNKNOWN
    tab.assert_is_table(tmp_path)
    fit(tmp_path, method(), data(), 500, resume=True)
    tab = Tab(tmp_path)
    assert tab.status(name) == SUCCESS
    tab.assert_is_table(tmp_path)


def test_a_diverged_problem_is_a_failure(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(tau=[2e-3, 5.0, 2e-3]), matrices(), 300)
    assert run.statuses == ["done", "diverged", "done"]
    tab = Tab(tmp_path)
    assert [tab.status(name) for name in run.table] == [SUCCESS, FAILURE, SUCCESS]
    assert [tab.settings(name)["tau"] for name in run.table] == [2e-3, 5.0, 2e-3]
    tab.assert_is_table(tmp_path)  # of the state that it went back to


def test_problem_with_an_earlier_best_shows_its_iteration(fit, matrix_method, matrices, tmp_path: Path) -> None:
    method = matrix_method(tau=[2e-3, 1e-9, 2e-3], evaluate_every=50)
    rule = VarianceStopping("windowed", window=100, patience=150)
    run = fit(tmp_path, method, matrices(), 400, early_stop=rule)
    slow = list(run.table)[1]
    reached = max(iteration for name, iteration, _, _ in run.metrics if name == slow)
    assert int(run.table[slow]["iterations"]) < reached
    Tab(tmp_path).assert_is_table(tmp_path)


def test_unused_rates_are_omitted(fit, matrix_method, matrices, tmp_path: Path) -> None:
    data = partial(matrices, seeds=1)
    fit(tmp_path / "convex", matrix_method(solver=InexactALM), data(), 200)
    fit(tmp_path / "plain", matrix_method(corruption=None), data(), 200)
    (convex,), (plain,) = (Tab(tmp_path / run).rows for run in ("convex", "plain"))
    settings = Tab(tmp_path / "convex").settings(convex)
    assert settings["solver"] == "InexactALM"
    assert "alpha" in settings
    assert not {"tau", "signal", "optimizer"} & set(settings)
    settings = Tab(tmp_path / "plain").settings(plain)
    assert settings["corruption"] == "NoCorruption"
    assert "alpha" not in settings
    together = Tab(tmp_path)  # runs of different methods in one tab: the columns of all
    assert {"solver", "tau"} <= {column.name for column in together.columns}
    assert set(together.rows) == {f"convex/{convex}", f"plain/{plain}"}


def test_an_image_in_tiles_is_one_row(fit, image_method, images, tmp_path: Path) -> None:
    data = images(images="camera", tile=8, overlap=0, seeds=[7])
    run = fit(tmp_path, image_method(evaluate_every=5), data, 10)
    (whole,) = run.table
    tab = Tab(tmp_path)
    assert tab.runs == {f"{whole}/tiles/{place}" for place in ("r0-c0", "r0-c1", "r1-c0", "r1-c1")}
    ((name, row),) = tab.rows.items()
    assert name == str(tmp_path / whole)
    assert len(row.sessions) == 4
    assert tab.settings(name)["seed"] == 7  # that of the image, not of a tile
    losses = [float(row[3]) for row in run.metrics if row[1] == 10 and row[2] == "loss"]
    assert tab.scores(name)["loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_values_keep_their_types_and_unsupported_ones_are_omitted() -> None:
    columns = {"yes": True, "n": 3, "x": 0.5, "name": "a", "far": math.inf, "none": None, "nan": math.nan}
    (value,) = session_start(columns, "").value  # type: ignore[arg-type]
    text = value.metadata.plugin_data.content
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    kept = parse_session_start_info_plugin_data(text).hparams
    assert {name: entry.WhichOneof("kind") for name, entry in kept.items()} == {
        "yes": "bool_value",
        "n": "number_value",
        "x": "number_value",
        "name": "string_value",
    }
