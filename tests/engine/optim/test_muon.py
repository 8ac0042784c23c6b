"""Muon: updates, and problems that leave or resume as with other optimizers."""

import copy
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from dop_lightning.cli.main import main
from dop_lightning.engine.alpha import default_alphas
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.graphs import is_capturable_optimizer
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim import compiled_muon
from dop_lightning.engine.optim.muon import Muon, orthogonalised
from dop_lightning.foundation.machine import has_bfloat16_units
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.part import draw

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 1, 7), (1, 5, 5)])
def test_orthogonalised_has_singular_values_about_one(shape: tuple[int, ...]) -> None:
    left, _, right = torch.linalg.svd(draw(0, shape), full_matrices=False)
    sigma = torch.linspace(1, 0.02, left.shape[-1], dtype=left.dtype)
    found = orthogonalised(7 * (left * sigma) @ right)
    inner = left.mT @ found @ right.mT  # diagonal, and the diagonal are the singular values
    own = inner.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inner, torch.diag_embed(own), rtol=0, atol=1e-8)
    assert bool(((own > 0.6) & (own < 1.3)).all()), own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decay", [1.0, 0.5, 0.01])
def test_orthogonalised_is_bounded(dtype: torch.dtype, decay: float) -> None:
    """Gradients have few large singular values, and many that rounding hides."""
    left, _, right = torch.linalg.svd(draw(0, (4, 64, 144)), full_matrices=False)
    matrices = ((left * decay ** torch.arange(64)) @ right).to(dtype)
    assert float(torch.linalg.matrix_norm(orthogonalised(matrices).float(), ord=2).max()) < 1.3


def test_orthogonalised_preserves_zeros_and_separates_matrices() -> None:
    stack = draw(1, (3, 4, 6))
    stack[1] = 0
    found = orthogonalised(stack)
    assert torch.equal(found[1], torch.zeros(4, 6, dtype=stack.dtype))
    torch.testing.assert_close(found[2], orthogonalised(stack[2:])[0], rtol=1e-10, atol=1e-10)


def gradients_of(seed: int, parameters: list[nn.Parameter]) -> None:
    for number, p in enumerate(parameters):
        p.grad = draw(100 * seed + number, p.shape, p.dtype)


def test_kernel_moves_by_the_orthogonalised_gradient_average() -> None:
    kernel = nn.Parameter(draw(0, (12, 2, 2, 2)))
    start, momentum = kernel.detach().clone(), 0.6
    optimizer = Muon([kernel], lr=0.1, momentum=momentum)
    average, expected = torch.zeros_like(start), start
    for seed in (1, 2):
        gradients_of(seed, [kernel])
        assert kernel.grad is not None
        average = momentum * average + (1 - momentum) * kernel.grad
        ahead = momentum * average + (1 - momentum) * kernel.grad
        rate = 0.1 * (12 / 8) ** 0.5
        matrix = ahead.movedim(1, -1).reshape(1, 12, 8)  # the order of columns has no part in it
        expected = expected - rate * orthogonalised(matrix).view(12, 2, 2, 2).movedim(-1, 1)
        optimizer.step()
        torch.testing.assert_close(kernel.detach(), expected, rtol=1e-9, atol=1e-9)


def test_kernels_of_several_shapes_move_independently() -> None:
    shapes = [(8, 5, 3, 3), (8, 2, 1, 1), (3, 8, 1, 1), (8, 5, 3, 3), (8, 8), (2, 3)]
    together = [nn.Parameter(draw(k, shape)) for k, shape in enumerate(shapes)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    gradients_of(1, together)
    gradients_of(1, alone)
    Muon(together).step()
    for p, q in zip(together, alone, strict=True):
        Muon([q]).step()
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-10, atol=1e-12)


def test_memory_layout_changes_rounding_only() -> None:
    one, other = (nn.Parameter(draw(0, (6, 4, 3, 3)).float()) for _ in range(2))
    other.data = other.data.contiguous(memory_format=torch.channels_last)
    for p in (one, other):
        gradients_of(1, [p])
        Muon([p], precision="fp32").step()
    torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not has_bfloat16_units("cpu"), reason="needs bf16 units")
def test_bfloat16_changes_rounding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_muon, "can_step", lambda _: False)
    fine, coarse = (nn.Parameter(torch.zeros(32, 16, 3, 3)) for _ in range(2))
    for p, precision in ((fine, "fp32"), (coarse, "bf16")):
        gradients_of(1, [p])
        Muon([p], precision=precision).step()
    error = (fine - coarse).norm() / fine.norm()
    assert 0 < float(error.detach()) < 0.1


def test_vectors_move_as_with_adam() -> None:
    mine = [nn.Parameter(draw(k, shape)) for k, shape in enumerate([(3,), (5,), ()])]
    theirs = [nn.Parameter(p.detach().clone()) for p in mine]
    one, other = Muon(mine, vector_lr=0.03, betas=(0.8, 0.95)), torch.optim.Adam(theirs, lr=0.03, betas=(0.8, 0.95))
    for seed in range(5):
        gradients_of(seed, mine)
        gradients_of(seed, theirs)
        one.step()
        other.step()
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-6, atol=1e-6)


def test_parameters_without_gradient_are_unchanged() -> None:
    parameters = [nn.Parameter(draw(0, shape)) for shape in [(3, 2), (3, 2), (4,), (4,)]]
    before = [p.detach().clone() for p in parameters]
    gradients_of(1, [parameters[0], parameters[2]])
    optimizer = Muon(parameters)
    optimizer.step()
    moved = [not torch.equal(p.detach(), q) for p, q in zip(parameters, before, strict=True)]
    assert moved == [True, False, True, False]
    assert len(optimizer.state) == 2


def test_a_closure_is_called() -> None:
    p = nn.Parameter(torch.eye(2))
    optimizer = Muon([p])

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0
    assert closure() < 2.0


def test_steps_can_be_captured_in_a_cuda_graph() -> None:
    assert is_capturable_optimizer(Muon([nn.Parameter(torch.zeros(2))]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": 0}, "lr must be a finite number above 0, got 0"),
        ({"momentum": 1}, "momentum must be at least 0 and below 1, got 1"),
        ({"vector_lr": -1}, "vector_lr must be a finite number above 0, got -1"),
        ({"betas": (0.9, 1.0)}, "betas must be at least 0 and below 1, got 1.0"),
        ({"precision": "fp16"}, "precision must be one of"),
        ({"eps": 0}, "eps must be a finite number above 0, got 0"),
    ],
)
def test_out_of_range_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Muon([nn.Parameter(torch.zeros(2))], **settings)


def make_state(*seeds: int, dtype: torch.dtype = torch.float32) -> BatchState:
    problems = ProblemBatch([Problem(f"p{s}", draw(s, (3, 16, 16)).sigmoid().to(dtype), seed=s) for s in seeds])
    method = Method(
        partial(SkipUNet, width=6, scales=2, precision="fp32"),
        partial(HadamardCorruption, scale=1e-5, tied=False),
        loss=SquaredLoss("mean"),
        theta_optimizer=Muon,
    )
    return BatchState(method, problems, 1.0, 20.0)


def parameters_of(state: BatchState, k: int) -> dict[str, Tensor]:
    return state.problem_state(k)["signal"]


def test_run_resumes_elsewhere_bit_for_bit() -> None:
    whole, first, then = make_state(3), make_state(3), make_state(3)
    whole.advance(12)
    first.advance(5)
    then.load_problem_state(0, first.problem_state(0))
    then.iteration = 5
    then.advance(7)
    for name, value in parameters_of(whole, 0).items():
        assert torch.equal(value, parameters_of(then, 0)[name]), name


def test_problems_of_a_batch_do_not_influence_each_other() -> None:
    together, alone = make_state(1, 2, dtype=torch.float64), make_state(2, dtype=torch.float64)
    together.advance(1)
    alone.advance(1)
    for name, value in parameters_of(together, 1).items():
        torch.testing.assert_close(value, parameters_of(alone, 0)[name], rtol=1e-7, atol=1e-7)


def test_restored_problem_returns_and_the_other_continues() -> None:
    state = make_state(1, 2)
    state.advance(3)
    before = [state.problem_state(k) for k in range(2)]
    snapshot = state.snapshot()
    state.advance(2)
    state.restore(snapshot, [0])
    after = [state.problem_state(k)["optimizers"][0] for k in range(2)]
    for name, remembered in before[0]["optimizers"][0].items():
        for key, value in remembered.items():
            assert torch.equal(value, after[0][name][key]), (name, key)
    steps = {float(remembered["step"]) for remembered in after[1].values() if "step" in remembered}
    assert steps == {5.0}


def test_s_is_revealed_sooner_than_with_adam() -> None:
    problems = ProblemBatch([Problem("image", torch.zeros(3, 128, 128), data_range=1.0)])
    corruption = HadamardCorruption(problems, scale=1e-5, tied=False)
    for rate, alpha in ((0.01, 2 * 1772), (0.005, 1772)):
        found = default_alphas(problems, SquaredLoss("mean"), [1.0], corruption, partial(Muon, lr=rate))
        assert found == [pytest.approx(alpha, rel=0.01)]


def test_optimizer_is_selected_in_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = {
        "signal": {"class_path": "SkipUNet", "init_args": {"width": 2}},
        "theta_optimizer": {
            "class_path": "dop_lightning.engine.optim.muon.Muon",
            "init_args": {"lr": 0.03, "betas": [0.9, 0.95]},
        },
        "corruption": {"class_path": "HyperbolicCorruption", "init_args": {"scale": 1e-5}},
        "steps": {"class_path": "Refinement"},
        "alpha": None,
    }
    (tmp_path / "muon.yaml").write_text(yaml.safe_dump({"model": model}), encoding="utf-8")
    files = ["--config", str(CONFIGS / "image.yaml"), "--config", str(tmp_path / "muon.yaml")]
    run = ["--data.resize", "16", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["fit", *files, *run, "--trainer.max_steps", "3"]) == 0, capsys.readouterr().err
    assert main(["fit", *files, *run, "--trainer.max_steps", "5"]) == 0, capsys.readouterr().err


def test_problems_that_share_parameters_are_refused() -> None:
    problems = ProblemBatch([Problem(f"{k}", draw(k, (4, 4)), seed=k) for k in range(2)])
    with pytest.raises(ValueError, match=r"must not mix the rows of the parameters of SymmetricFactor, .* got Muon"):
        BatchState(Method(SymmetricFactor, theta_optimizer=Muon), problems, 1e-3, 2.0)


def test_copies_continue_identically() -> None:
    kernel = nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
    optimizer = Muon([kernel], lr=0.1, precision="bf16")
    kernel.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    moved = []
    for one in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), optimizer):
        (p,) = one.param_groups[0]["params"]
        p.grad = torch.ones(4, 6)
        one.step()
        moved.append(p.detach())
    assert torch.equal(moved[0], moved[2])
    assert torch.equal(moved[1], moved[2])
