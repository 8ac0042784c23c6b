"""The residuals of Lemma 1 along a run."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor, SymmetricFactor
from dop_lightning.paper.certificate_callback import DualCertificate, _Start
from dop_lightning.paper.theory import dual_certificate, dual_variable, kkt_residuals

TAGS = ["kkt_feasibility", "kkt_dual", "kkt_slackness", "kkt_sign", "kkt_product"]


def curves(run, tag: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {name: {} for name in run.table}
    for name, iteration, of, value in run.metrics:
        if of == tag:
            found[name][iteration] = float(value)
    return found


@pytest.mark.parametrize("signal", [SymmetricFactor, Factor])
def test_residuals_of_every_problem_are_recorded_and_become_small(
    signal, fit, matrix_method, matrices, tmp_path: Path
) -> None:
    run = fit(tmp_path, matrix_method(signal=signal), matrices(seeds=2), 1000, DualCertificate())
    for tag in TAGS:
        for curve in curves(run, tag).values():
            assert list(curve) == [200, 400, 600, 800, 1000], tag
    for tag, bound in (("kkt_feasibility", 0.1), ("kkt_slackness", 0.4), ("kkt_sign", 0.4), ("kkt_product", 1e-5)):
        for curve in curves(run, tag).values():
            assert curve[1000] < bound, tag
    for curve in curves(run, "kkt_feasibility").values():
        assert curve[1000] < 0.2 * curve[200]


def test_residuals_of_the_start_of_equation_11(fit, matrix_method, matrices, tmp_path: Path) -> None:
    """γI and γ·1 leave no choice of scales: the residuals are those of the theorem's own ν."""
    gamma = 1e-3
    module = matrix_method(
        signal=partial(SymmetricFactor, scale=gamma, start="identity"),
        corruption=partial(HadamardCorruption, scale=gamma, start="constant"),
        evaluate_every=300,
    )
    kept = {}

    class Keep(DualCertificate):
        def on_evaluation(self, trainer, module, batch) -> None:
            super().on_evaluation(trainer, module, batch)
            state: Any = batch.state
            g, h = state.corruption.g.detach(), state.corruption.h.detach()
            nu = dual_certificate(dual_variable(g, h, state.alpha[0]), gamma)
            y = batch.problems.observation
            kept.update(
                kkt_residuals(state.operator, y, batch.evaluation.signal, g, h, nu, 1 / state.alpha[0])
                .by_name()
                .items()
            )

    run = fit(tmp_path, module, matrices(), 300, Keep())
    for tag in TAGS:
        found = torch.tensor([curve[300] for curve in curves(run, tag).values()])
        torch.testing.assert_close(found, kept[tag.removeprefix("kkt_")].to(found), rtol=1e-3, atol=1e-6)


def test_resumed_run_writes_the_same_rows(fit, matrix_method, matrices, tmp_path: Path) -> None:
    fit(tmp_path / "a", matrix_method(), matrices(), 400, DualCertificate())
    resumed = fit(tmp_path / "a", matrix_method(), matrices(), 600, DualCertificate(), resume=True)
    at_once = fit(tmp_path / "b", matrix_method(), matrices(), 600, DualCertificate())
    assert resumed.metrics == at_once.metrics


def test_runs_without_the_callback_have_no_such_rows(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(), matrices(seeds=1), 200)
    assert not any(tag.startswith("kkt") for _, _, tag, _ in run.metrics)


def test_other_parts_are_refused_at_the_start(fit, matrix_method, image_method, matrices, images, tmp_path) -> None:
    with pytest.raises(ValueError, match="DualCertificate requires HadamardCorruption as corruption, got NoCorruption"):
        fit(tmp_path / "a", matrix_method(corruption=None), matrices(), 200, DualCertificate())
    with pytest.raises(ValueError, match="DualCertificate requires SymmetricFactor or Factor as signal, got SkipUNet"):
        fit(tmp_path / "b", image_method(), images(), 50, DualCertificate())
    large = matrix_method(signal=partial(SymmetricFactor, scale=1.0))
    with pytest.raises(
        ValueError, match="DualCertificate requires an initialization scale below 1, got signal scale 3"
    ):
        fit(tmp_path / "c", large, matrices(), 200, DualCertificate())


@pytest.mark.parametrize("signal", [SymmetricFactor, Factor])
def test_a_growing_factor_starts_like_one_with_all_columns(signal, matrices) -> None:
    """γ of the first few columns alone would be too small, and the certificate too good."""
    data = matrices(n=40, seeds=3)
    data.setup()
    gammas = []
    for growing in (True, False):
        state = BatchState(Method(partial(signal, growing=growing), HadamardCorruption), data.batches[0], 1e-3)
        gammas.append(_Start(state).scales[0])
    torch.testing.assert_close(gammas[0], gammas[1], rtol=0.05, atol=0)
