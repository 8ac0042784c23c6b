"""By what a run recognizes its settings and problems."""

from dataclasses import replace

import pytest
import torch

from dop_lightning.images.tiles import cut
from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.digests import common_settings, given_rates, problem_digest, settings_digest

CONFIG = {
    "model": {"tau": 0.002, "alpha": None, "block": 100, "signal": {"class_path": "Factor", "init_args": {"rank": 3}}},
    "data": {"class_path": "MatrixDataModule", "init_args": {"n": 12, "seeds": 2, "dtype": "float32"}},
    "stable": {"tolerance": 0.01},
    "early_stop": {"variance": None, "window": 100},
    "trainer": {"max_steps": 100},
}


def digest(**sections: dict) -> str:
    config = {key: {**section, **sections.get(key, {})} for key, section in CONFIG.items()}  # type: ignore[dict-item]
    return settings_digest(common_settings(config, {"n", "seeds"}))


def of_data(**arguments: object) -> dict:
    return {"init_args": {**CONFIG["data"]["init_args"], **arguments}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"tau": 1.0, "alpha": [3.0], "block": 7}},
        {"model": {"theta_optimizer": None, "added_later": {"inner": None}}},
        {"model": {"signal": {"class_path": "dop_lightning.model.signals.Factor", "init_args": {"rank": 3}}}},
        {"data": of_data(n=[12, 20], seeds=5, max_memory=None)},
        {"early_stop": {"window": 50}},
        {"trainer": {"max_steps": 5000}},
    ],
)
def test_other_settings_do_not_change_the_digest(sections: dict) -> None:
    assert digest(**sections) == digest()


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"signal": {"class_path": "Factor", "init_args": {"rank": 4}}}},
        {"model": {"signal": {"class_path": "mine.Factor", "init_args": {"rank": 3}}}},
        {"model": {"evaluate_every": 3}},
        {"data": of_data(dtype="float64")},
        {"data": {"class_path": "VectorDataModule"}},
        {"stable": {"tolerance": 0.1}},
        {"early_stop": {"variance": "windowed"}},
    ],
)
def test_common_settings_change_the_digest(sections: dict) -> None:
    assert digest(**sections) != digest()


def test_data_identify_a_problem() -> None:
    y = torch.arange(1.0, 5.0).view(2, 2)
    problem, way = Problem("a", y), GaussianMeasurements(4)
    measured = Problem("a", torch.ones(4), sensing=way, signal_shape=(2, 2))
    others = [
        Problem("a", y + 1),
        Problem("a", y.double()),
        Problem("a", y.view(4, 1)),
        Problem("a", y * torch.eye(2), mask=torch.eye(2, dtype=torch.bool)),
        Problem("a", y * torch.eye(2)),
        replace(problem, seed=1),
        replace(problem, alpha=2.0),
        replace(problem, data_range=1.0),
        measured,
        Problem("a", torch.ones(4)),
        replace(measured, sensing=GaussianMeasurements(4, symmetric=True)),
        replace(measured, signal_shape=(3, 3)),
    ]
    assert len({problem_digest(each) for each in [problem, *others]}) == 13
    same = replace(problem, name="b", truth=torch.zeros(2, 2), observation=y.T.contiguous().T)
    assert problem_digest(same) == problem_digest(problem)


def test_tiles_have_a_separate_digest() -> None:
    image = Problem("a", torch.rand(1, 20, 20), data_range=1.0)
    digests = [problem_digest(image, cut(image, *tiles)) for tiles in ((8, 0), (8, 4), (16, 0), (32, 0))]
    assert len(set(digests)) == 4
    assert {each.partition("-")[0] for each in digests} == {problem_digest(image)}
    assert digests[3] == problem_digest(image)  # not cut


def test_rates_belong_to_the_parts_of_a_problem() -> None:
    config = {"model": {"tau": [1.0, 2.0, 2.0, 3.0], "alpha": None}}
    assert given_rates(config, [1, 2, 1]) == [{"tau": tau, "alpha": None} for tau in (1.0, 2.0, 3.0)]
    assert given_rates(config, [2, 2])[0]["tau"] == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"^tau must be one number, or one per problem \(3\), got 4 numbers$"):
        given_rates(config, [1, 1, 1])
