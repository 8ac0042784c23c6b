"""Robust PCA on a GPU."""

import numpy as np
import pytest
import torch

from dop_lightning.matrices.robust_pca import RobustPCA
from tests.pretend_cuda.checks import ON_PRETENDED, watched
from tests.suites.everywhere import CASES, Factor, HadamardCorruption, Method, Problem, ProblemBatch, SemiImplicit


def table(n: int = 60, m: int = 12) -> np.ndarray:
    draw = np.random.default_rng(0)
    X = draw.standard_normal((n, 2)) @ draw.standard_normal((2, m)) + 0.01 * draw.standard_normal((n, m))
    X[draw.random((n, m)) < 0.05] += 10
    return X


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["projections", "dop"])
def test_robust_pca_on_a_gpu(method: str) -> None:
    X = table(*((120, 110) if method == "projections" else (60, 12)))
    settings = {"method": method, "alpha": None if method == "dop" else "auto"}
    here, there = (RobustPCA(2, device=device, **settings).fit(X) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.low_rank_, here.low_rank_, atol=1e-3)
    np.testing.assert_allclose(there.transform(X), here.transform(X), atol=1e-3)


class TestPretended:
    pytestmark = ON_PRETENDED

    def test_transform_uses_the_device(self) -> None:
        X = table()
        model = RobustPCA(2, device="cuda").fit(X)
        assert type(model._model).__name__ == "LowRankModel"
        with watched() as seen:
            model.transform(X)
        assert seen.launched > 100

    def test_semi_implicit_steps_use_one_strip(self) -> None:
        """A large matrix makes as many launches as a small one."""
        launches = []
        for n in (64, 1200):
            y = torch.randn(n, 1000, generator=torch.Generator().manual_seed(0))
            method = Method(lambda p: Factor(p, rank=2), HadamardCorruption, steps=SemiImplicit())
            state = method.begin(ProblemBatch([Problem("y", y)], "cuda"), "auto", 5.0)
            state.advance(1)
            with watched() as seen:
                state.advance(4)
            launches.append(seen.launched)
        assert launches[0] == launches[1]

    def test_requested_device_is_used(self) -> None:
        case = CASES["projections"]
        before = torch.cuda.memory_allocated(0)
        torch.cuda.reset_peak_memory_stats(0)
        state = case.make().begin(ProblemBatch(case.problems(), "cuda:1"), "auto")
        state.advance(5)
        assert state.evaluate().signal.device == torch.device("cuda:1")
        assert torch.cuda.max_memory_allocated(0) == before
