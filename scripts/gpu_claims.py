"""Claims that either hold or do not hold on a GPU: one function per claim, called by measure_gpu.py.

A function takes the device, ``cuda`` or ``cpu``, and returns a short description of its observation. It raises an error
if the claim does not hold, and :class:`Unmeasured` if the device cannot decide it.
"""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dop_lightning.cli.main import main as dop
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.measure import working_memory
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.engine.steps import GradientDescent, Nesterov, Refinement, SemiImplicit
from dop_lightning.images.recover import recover_image
from dop_lightning.matrices.robust_pca import RobustPCA
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.signals import Factor, SkipUNet
from dop_lightning.model.signals.unet.triton_kernels.available import TOLERANCE, are_usable, deviation
from dop_lightning.problems.problem import Problem, ProblemBatch

BLOCK = 30
"""Iterations after which a graph exists."""


class Unmeasured(Exception):
    """The claim cannot be decided on this device; the message is the reason."""


# ------------------------------------------------------------------------------------------------------------ examples


def waves(side: int, damaged: bool = True) -> Tensor:
    """Return a smooth image with three channels, with a fifth of its values corrupted by default."""
    generator = torch.Generator().manual_seed(0)
    at = torch.linspace(0, 3, side)
    clean = 0.5 + 0.35 * torch.sin(at[:, None] + at * torch.arange(1, 4).view(-1, 1, 1))
    return torch.where(torch.rand(clean.shape, generator=generator) < 0.2, torch.ones(()), clean) if damaged else clean


def pixels(side: int, damaged: bool = True) -> np.ndarray:
    """Return the same image with 8 bits."""
    return (255 * waves(side, damaged)).round().byte().movedim(0, -1).numpy()


def matrix() -> np.ndarray:
    """Return a matrix of rank 2 with outliers."""
    draw = np.random.default_rng(0)
    X = draw.standard_normal((120, 2)) @ draw.standard_normal((2, 80))
    return X + 10 * (draw.random(X.shape) < 0.05)


def images(device: str, count: int = 1, side: int = 32) -> ProblemBatch:
    """Return a batch of copies of the same image with different seeds."""
    return ProblemBatch([Problem(f"{k}", waves(side), seed=k, data_range=1.0) for k in range(count)], device)


def method(width: int = 8, **settings: object) -> Method:
    """Return the default method for images, at a small width; ``network`` has settings of the network."""
    network = {"width": width, "bias": False, **settings.pop("network", {})}  # type: ignore[dict-item]
    chosen = {
        "corruption": partial(HadamardCorruption, scale=1e-5, tied=False),
        "loss": SquaredLoss("mean"),
        "theta_optimizer": partial(Muon, lr=0.02),
        "steps": GradientDescent(),
    }
    return Method(partial(SkipUNet, **network), **{**chosen, **settings})  # type: ignore[arg-type]


PAPER = {"theta_optimizer": None}
L1 = {"corruption": None, "loss": AbsoluteLoss("mean")}


@contextlib.contextmanager
def less_memory(total: int) -> Iterator[None]:
    """Limit the memory of this process on the GPU, in bytes."""
    if not torch.backends.cuda.is_built():
        raise Unmeasured("this needs a GPU")
    torch.cuda.set_per_process_memory_fraction(total / torch.cuda.mem_get_info()[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# -------------------------------------------------------------------------------------------------------------- claims


def kernels_agree(device: str) -> str:
    """Check that fused kernels are used, and agree with plain operations."""
    if device == "cpu" or not torch.backends.cuda.is_built():
        raise Unmeasured("Triton's kernels need a GPU")
    usable = are_usable(torch.device(device, torch.cuda.current_device()))
    found = deviation(torch.device(device))
    assert usable, "plain operations are used"
    assert found <= TOLERANCE, f"{found:.2g} above {TOLERANCE}"
    return f"largest relative deviation {found:.1e}"


def losses_agree(device: str) -> str:
    """Check that losses in float32 without TF32 agree with those of the CPU."""
    settings = {"precision": "fp32", "perturbation": 0.0, "fused": False}
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        here, there = (loss_after(method(network=settings), where) for where in ("cpu", device))
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    assert abs(there / here - 1) <= 2e-2, f"{there:.5f}, on the CPU {here:.5f}"
    return f"{there:.5f} and {here:.5f}"


def bf16_agrees(device: str) -> str:
    """Check that the losses of fused and of plain operations agree in bf16."""
    found = [
        loss_after(method(network={"precision": "bf16", "perturbation": 0.0, "fused": fused}), device)
        for fused in (True, False)
    ]
    assert abs(found[0] / found[1] - 1) <= 5e-2, f"{found[0]:.5f} fused, {found[1]:.5f} plain"
    return f"{found[0]:.5f} and {found[1]:.5f}"


def loss_after(chosen: Method, device: str, iterations: int = 5) -> float:
    """Return the loss after some iterations."""
    state = BatchState(chosen, images(device), 1.0, 500.0)
    state.advance(iterations)
    return float(state.evaluate().loss)


def captured(device: str, count: int = 1, **settings: object) -> BatchState:
    """Return the state of a run after a block, whose iterations are a CUDA graph."""
    state = BatchState(method(**settings), images(device, count), 1.0, None if "corruption" in settings else 500.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*without a CUDA graph.*")
        state.advance(BLOCK)
    if device == "cpu":
        raise Unmeasured("CUDA graphs need a GPU")
    assert state.loop is not None
    assert state.loop.holds_graph, "no graph was captured"
    return state


def does_not_wait(device: str, count: int = 1, **settings: object) -> str:
    """Check that iterations are captured as a graph, and that the host does not wait within a block."""
    state = captured(device, count, **settings)
    if not torch.backends.cuda.is_built():
        raise Unmeasured("a graph was captured, but waits are only detected on a GPU")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            state.method.steps.descend(state, 9)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "CUDA graph"


def factors_descend(device: str, steps: type, tau: float | str) -> str:
    """Check that the loss of a matrix factorization decreases."""
    problems = ProblemBatch([Problem("matrix", torch.from_numpy(matrix()).float(), seed=0)], device)
    state = BatchState(Method(partial(Factor, rank=4), HadamardCorruption, steps=steps()), problems, tau)
    losses = []
    for iterations in (1, 300):
        state.advance(iterations)
        losses.append(float(state.evaluate().loss))
    assert losses[1] < losses[0], losses
    return f"loss {losses[0]:.3g}, then {losses[1]:.3g}"


def halves_batch(device: str) -> str:
    """Check that a batch that does not fit is unchanged, and that half of it can continue."""
    if device == "cpu":
        raise Unmeasured("this needs a GPU")
    few, side, width = 4, 128, 32
    need = working_memory(BatchState(method(width), images(device, 1, side), 1.0, 500.0))
    state = BatchState(method(width), images(device, few, side), 1.0, 500.0)
    torch.cuda.empty_cache()
    with less_memory(torch.cuda.memory_reserved() + need // 2):
        try:
            state.advance(3)
        except OutOfMemoryError:
            half = state.select(range(few // 2))
            state.release()
        else:
            raise AssertionError("four problems fit into half of the memory of one")
    torch.cuda.empty_cache()
    half.advance(3)
    assert bool(torch.isfinite(half.evaluate().loss).all())
    return "half of the batch continues"


class Looks(SquaredLoss):
    """A loss that synchronizes during capture, which CUDA refuses."""

    def value(self, r: Tensor) -> Tensor:
        """Synchronize, then return the loss."""
        if torch.cuda.is_current_stream_capturing():
            float(r.sum())
        return super().value(r)


def survives_a_broken_capture(device: str) -> str:
    """Check that the run continues after a failed capture, and that the next run is captured."""
    if device == "cpu":
        raise Unmeasured("CUDA graphs need a GPU")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BatchState(method(loss=Looks("mean")), images(device), 1.0, 500.0).advance(BLOCK)
    assert any("without a CUDA graph" in str(each.message) for each in caught), "no warning was issued"
    torch.cuda.empty_cache()  # PyTorch asserts here that every capture has ended
    captured(device)
    return "the next run is captured"


def recovers(device: str, side: int, **settings: object) -> str:
    """Check that the error of an image decreases."""
    given, clean = pixels(side), pixels(side, damaged=False).astype(float)
    found = recover_image(given, device=device, progress=False, **settings)  # type: ignore[arg-type]
    before, after = (float(np.abs(image - clean).mean()) for image in (given, found.image))
    assert after < before, f"mean error {after:.1f}, before {before:.1f}"
    return f"{found.status}, mean error {after:.1f} instead of {before:.1f}"


def separates(device: str, chosen: str) -> str:
    """Check that RobustPCA finds the rank."""
    settings = {"method": chosen, "alpha": None if chosen == "dop" else "auto"}
    model = RobustPCA(2, device=device, center=False, **settings).fit(matrix())
    assert np.linalg.matrix_rank(model.low_rank_, tol=1.0) == 2, "the rank is not 2"
    return "rank 2"


def verb_runs(device: str, *words: str) -> str:
    """Check that a command exits with status 0, in a folder with a picture and a matrix."""
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        np.save("matrix.npy", matrix())
        Image.fromarray(pixels(32)).save("photo.png")
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = dop([*words, "--out", "out", "--device", device])
        found = len(list(Path("out").rglob("result.json"))) if Path("out").is_dir() else 0
    assert status == 0, f"exit status {status}: {' '.join(printed.getvalue().split())[-300:]}"
    return f"{found} results"


CLAIMS: dict[str, Callable[[str], str]] = {
    "fused kernels agree with plain operations": kernels_agree,
    "losses agree with those of the CPU": losses_agree,
    "losses of fused and plain bf16 agree": bf16_agrees,
    "the paper's method does not wait": partial(does_not_wait, **PAPER),
    "the default method does not wait": partial(does_not_wait, steps=Refinement()),
    "ℓ1 loss does not wait": partial(does_not_wait, **L1),
    "three networks side by side do not wait": partial(does_not_wait, count=3),
    "gradient descent on a matrix": partial(factors_descend, steps=GradientDescent, tau="auto"),
    "Nesterov steps on a matrix": partial(factors_descend, steps=Nesterov, tau="auto"),
    "semi-implicit steps on a matrix": partial(factors_descend, steps=SemiImplicit, tau="auto"),
    "recover_image": partial(recovers, side=32, width=8, iterations=60),
    "recover_image in tiles": partial(recovers, side=72, width=4, iterations=60, tile=64),
    "RobustPCA by projections": partial(separates, chosen="projections"),
    "RobustPCA by DOP": partial(separates, chosen="dop"),
    "dop recover": lambda device: verb_runs(device, "recover", "photo.png", "--width", "8", "--iterations", "30"),
    "dop separate": lambda device: verb_runs(device, "separate", "matrix.npy"),
    "a batch that does not fit continues in halves": halves_batch,
    "the next capture works after a failed one": survives_a_broken_capture,  # last: if it fails, CUDA is unusable
}
"""Claims by name, in the order in which they are checked."""
