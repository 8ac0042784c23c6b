"""recover_image: the pixels of dop recover, images of any kind, missing values, and no side effects on the process."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning import recover_image
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.run import Run
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.engine.steps import Refinement
from dop_lightning.images.progress import in_notebook
from dop_lightning.problems.scoring import DENSITY_THRESHOLD

TINY: dict[str, Any] = {"preset": "quick", "width": 4, "iterations": 3, "device": "cpu", "precision": "fp32"}


def clean(height: int = 20, width: int = 24, channels: int = 3) -> np.ndarray:
    """A colour image of smooth gradients."""
    rows, columns = np.mgrid[:height, :width]
    planes = [128 + 90 * np.sin(0.2 * (k + 1) * rows + 0.15 * columns) for k in range(channels)]
    return np.stack(planes, axis=2).round().astype(np.uint8)


def damaged(image: np.ndarray, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Salt and pepper on a share of the entries, and where."""
    rng = np.random.default_rng(0)
    hit = rng.random(image.shape) < share
    return np.where(hit, rng.choice([0, 255], image.shape), image).astype(image.dtype), hit


# -------------------------------------------------------------------------------------------------- as the command does


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "quick", "iterations": 40},
        {"preset": "quick", "iterations": 12, "tile": 16, "seed": 5, "alpha": 300.0},
        {"preset": "paper", "iterations": 12, "per": "pixel", "value_range": (0.0, 200.0)},
    ],
)
def test_equals_dop_recover(options: dict[str, Any], tmp_path: Path, dop: Callable[..., Any]) -> None:
    Image.fromarray(damaged(clean())[0]).save(tmp_path / "photo.png")
    Image.fromarray(clean()).save(tmp_path / "clean.png")
    words = ["--width", "4", "--device", "cpu", "--precision", "fp32", "--truth", f"{tmp_path}/clean.png"]
    for name, value in options.items():
        numbers = value if isinstance(value, tuple) else [value]
        words += [f"--{'range' if name == 'value_range' else name}", *(str(number) for number in numbers)]
    assert dop("recover", f"{tmp_path}/photo.png", "--out", f"{tmp_path}/run", *words).status == 0
    own = recover_image(tmp_path / "photo.png", truth=tmp_path / "clean.png", **{**TINY, **options}, progress=False)
    with Image.open(tmp_path / "run/photo/recovered.png") as image:
        assert (np.array(image) == own.image).all()
    assert (np.load(tmp_path / "run/photo/recovered.npy") == own._outcome.signal.numpy()).all()
    own.save(tmp_path / "own.png")
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "run/photo/recovered.png").read_bytes()


def test_stable_recovery_ends_like_that_of_the_command(
    tmp_path: Path, dop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dop_lightning.engine.steps.Refinement.reveal", lambda self, state, k: 25)
    monkeypatch.setattr(
        "dop_lightning.engine.steps.Refinement.finished", lambda self, state: [0][: state.iteration == 50]
    )
    given = damaged(clean(12, 12, 1))[0]
    np.save(tmp_path / "a.npy", given)
    words = ["--width", "2", "--device", "cpu", "--precision", "fp32", "--preset", "quick"]
    assert dop("recover", f"{tmp_path}/a.npy", "--out", f"{tmp_path}/run", *words).status == 0
    own = recover_image(given, preset="quick", width=2, device="cpu", precision="fp32")
    assert (own.status, own.iterations, own.history["iteration"]) == ("stable", 50, [50])
    assert (np.load(tmp_path / "run/a/recovered.npy") == own.image).all()


def test_corruption_is_removed() -> None:
    truth = clean(channels=1)
    given, hit = damaged(truth)
    recovery = recover_image(given, truth=truth, **{**TINY, "iterations": 200})
    before = np.abs(given.astype(float) - truth).mean()
    after = np.abs(recovery.image.astype(float) - truth).mean()
    assert after < before / 3
    far = np.abs(given.astype(float) - truth) > 0.3 * 255
    assert recovery.mask[far].mean() > 0.9
    assert recovery.mask[~hit].mean() < 0.2
    assert recovery.history["psnr"][-1] > recovery.history["psnr"][0] + 5


# ------------------------------------------------------------------------------------------------------------- any kind


def test_all_kinds_give_the_same_pixels(tmp_path: Path) -> None:
    given = damaged(clean())[0]
    Image.fromarray(given).save(tmp_path / "a.png")
    expected = recover_image(given, **TINY)
    for kind, back in (
        (Image.fromarray(given), np.array),
        (torch.from_numpy(given).permute(2, 0, 1), lambda tensor: tensor.permute(1, 2, 0).numpy()),
        (given.transpose(2, 0, 1), lambda array: array.transpose(1, 2, 0)),
        (tmp_path / "a.png", np.array),
    ):
        recovery = recover_image(kind, **TINY)
        assert (back(recovery.image) == expected.image).all()
        for name in ("corruption", "mask"):
            found = getattr(recovery, name)
            planes = found if isinstance(kind, Image.Image | Path) else back(found)
            assert (planes == getattr(expected, name)).all()


@pytest.mark.parametrize(
    ("dtype", "entries"), [("uint8", "float32"), ("uint16", "float32"), ("float16", "float32"), ("float64", "float64")]
)
def test_the_corruption_is_in_units_of_the_image(dtype: str, entries: str) -> None:
    given = (damaged(clean())[0] * (1 / 255 if np.dtype(dtype).kind == "f" else 1)).astype(dtype)
    recovery = recover_image(given, value_range=(0, 1 if given.dtype.kind == "f" else 255), **TINY)
    assert recovery.image.dtype == given.dtype
    assert recovery.corruption.dtype == np.dtype(entries)
    assert recovery.corruption.shape == recovery.mask.shape == given.shape
    width = 1 if given.dtype.kind == "f" else 255
    assert (recovery.mask == (np.abs(recovery.corruption) > DENSITY_THRESHOLD * width)).all()
    assert recovery.history["corruption_density"][-1] == pytest.approx(recovery.mask.mean())


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (8, 40), (9, 8, 6), (8, 9, 1)])
def test_images_may_be_small_and_have_any_number_of_bands(shape: tuple[int, ...]) -> None:
    given = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert recover_image(given, **TINY).image.shape == shape


# ----------------------------------------------------------------------------------------------------------- missing


def test_nan_is_missing_and_filled() -> None:
    given = (clean() / 255).astype(np.float32)
    given[3:6, 4:9] = np.nan
    given[0, 0, 1] = np.nan
    recovery = recover_image(given, **TINY)
    assert np.isfinite(recovery.image).all()
    assert not recovery.corruption[np.isnan(given)].any()
    assert not recovery.mask[np.isnan(given)].any()


def test_mask_is_equivalent_to_nan() -> None:
    given = (clean() / 255).astype(np.float32)
    observed = np.ones(given.shape[:2], dtype=bool)
    observed[3:6, 4:9] = False
    holes = np.where(observed[..., None], given, np.float32(np.nan))
    expected = recover_image(holes, **TINY).image
    for mask in (observed, observed[..., None], torch.from_numpy(observed), Image.fromarray(observed)):
        assert (recover_image(given, mask=mask, **TINY).image == expected).all()


def test_transparent_pixels_are_missing() -> None:
    given = Image.fromarray(clean()).convert("RGBA")
    alpha = np.full((20, 24), 255, dtype=np.uint8)
    alpha[3:6, 4:9], alpha[10:, 10:] = 0, 128
    given.putalpha(Image.fromarray(alpha))
    recovery = recover_image(given, **TINY)
    assert recovery.image.mode == "RGBA"
    assert (np.array(recovery.image)[..., 3] == alpha).all()
    assert recovery.corruption.shape == (20, 24, 3)
    assert (recover_image(clean(), mask=alpha > 0, **TINY).image == np.array(recovery.image)[..., :3]).all()


def test_truth_may_have_another_type_and_changes_scores_only() -> None:
    given = damaged(clean())[0]
    plain = recover_image(given, **TINY)
    scored = recover_image(given, truth=Image.fromarray(clean()), **TINY)
    assert (plain.image == scored.image).all()
    assert list(plain.history) == ["iteration", "loss", "corruption_density"]
    assert list(scored.history) == [*plain.history, "relative_error", "psnr", "ssim"]


# -------------------------------------------------------------------------------------------------------------- refused


DAMAGE = (
    "damage must be one of auto, points, lines, scratches, rectangles, dust, text, or several of the last four joined "
    "by '+', got "
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "slow"}, "preset must be one of instant, quick, default, best, paper, got 'slow'"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must be a finite number above 0, got 0.0"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"tile": 4}, "tile must be a whole number of at least 8, got 4"),
        ({"damage": "tears"}, DAMAGE + "'tears'"),
        ({"damage": "dust+dust"}, DAMAGE + "'dust+dust'"),
        ({"damage": "lines+dust"}, DAMAGE + "'lines+dust'"),
        ({"damage": "lines", "preset": "paper"}, "damage must be auto or points with the preset paper, got 'lines'"),
        ({"max_memory": "much"}, "max_memory must be a positive amount such as 8G or 500M, got 'much'"),
        ({"max_memory": "1M"}, "max_memory must be at least "),
        ({"max_memory": "1M", "tile": 16}, "max_memory must be at least "),
        ({"per": "row"}, "per must be one of auto, entry, pixel, got 'row'"),
        ({"precision": "fp16"}, "precision must be one of auto, bf16, fp32, got 'fp16'"),
        ({"device": "tpu9"}, "device must be auto, cpu, gpu, or a device of torch, got 'tpu9' ("),
        ({"value_range": (1, 0)}, "value_range must be two finite numbers, the first below the second, got (1, 0)"),
        (
            {"value_range": (-9, -1)},
            "image: value_range must contain at least 10% of the values, in the units of the image",
        ),
        ({"mask": np.ones((3, 3))}, "mask: the mask must have the size of the image, 20×24, got 3×3"),
        (
            {"mask": np.zeros((20, 24))},
            "mask: the mask must be above 0 where the image is observed, got no value above 0",
        ),
        ({"mask": "nowhere.png"}, "nowhere.png: no such file or folder"),
        ({"mask": 3}, "mask must be a path, a NumPy array, a PIL image or a torch tensor, got int"),
        (
            {"truth": clean(20, 23)},
            "truth: the truth must have the channels, height and width of the image, (3, 20, 24), got (3, 20, 23)",
        ),
        (
            {"truth": np.full((20, 24, 3), np.nan)},
            "truth: an image must have at least one observed value, got only missing ones",
        ),
        (
            {"truth": np.where(clean() > 200, np.nan, clean())},
            "truth: the truth must be complete, got ",
        ),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^" + re.escape(message)):
        recover_image(clean(), **{**TINY, **options})


def test_mask_without_observed_entries_is_refused() -> None:
    given = (clean() / 255).astype(np.float32)
    given[:10] = np.nan
    with pytest.raises(ValueError, match=r"^mask: the mask must keep at least one observed value of image, got none$"):
        recover_image(given, mask=np.isnan(given), **TINY)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "gpu"])
def test_missing_gpu_is_reported(device: str) -> None:
    with pytest.raises(ValueError, match=rf"^device must be auto, cpu, gpu, or a device of torch, got '{device}' \("):
        recover_image(clean(), **{**TINY, "device": device})


# --------------------------------------------------------------------------------------------------------- large images


def test_large_images_are_recovered_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []
    to_end = Run.to_end

    def note(run: Run) -> None:
        sizes.extend(tuple(problem.observation.shape) for state in run.states for problem in state.problems)
        to_end(run)

    monkeypatch.setattr(Run, "to_end", note)
    given = damaged(clean(200, 200, 1))[0]
    recovery = recover_image(given, max_memory="800M", **{**TINY, "iterations": 1})
    assert recovery.image.shape == given.shape
    assert len(sizes) > 1
    assert max(sizes) < (1, 200, 200)


def test_too_little_memory_gives_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dop_lightning.model.signals.SkipUNet.forward", greedy)
    with pytest.raises(OutOfMemoryError, match=r"^image: out of memory .*; use a smaller tile or width$"):
        recover_image(clean(), **TINY)


# ------------------------------------------------------------------------------------------------ the process around it


def test_global_state_of_the_process_is_unchanged() -> None:
    np.random.seed(3)  # noqa: NPY002 — the global generator is what is looked at
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist())  # noqa: NPY002
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    given = damaged(clean())[0]
    copy = given.copy()
    recover_image(given, **TINY)
    assert (given == copy).all()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert (torch.get_num_threads(), signal.getsignal(signal.SIGINT)) == (threads, handler)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_works_under_no_grad(around: Callable[[], Any]) -> None:
    given = torch.from_numpy(damaged(clean())[0]).permute(2, 0, 1)
    expected = recover_image(given, **TINY).image
    with around():
        assert torch.equal(recover_image(given, **TINY).image, expected)


def test_seed_determines_the_result() -> None:
    given = damaged(clean())[0]
    one, again, other = (recover_image(given, seed=seed, **TINY).image for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_lightning_is_not_imported() -> None:
    code = (
        "import sys, dop_lightning; light = 'torch' not in sys.modules and 'typing' not in sys.modules\n"
        "from dop_lightning import recover_image\n"
        "print(light, *(name in sys.modules for name in ('pytorch_lightning', 'jsonargparse')))"
    )
    said = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["True", "False", "False"]


def test_other_names_are_unknown() -> None:
    import dop_lightning

    with pytest.raises(AttributeError, match=r"^module 'dop_lightning' has no attribute 'recover'$"):
        _ = dop_lightning.recover  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------- probability of corruption


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corruptions count as revealed after few iterations, and the network as one that knows the image by then."""
    monkeypatch.setattr(Refinement, "reveal", lambda rule, state, k: rule.every)
    monkeypatch.setattr("dop_lightning.engine.steps.refinement.MAX_INFORMATIVE_ERROR", 1e9)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("axis", [None, 0, 2])
@pytest.mark.parametrize("tile", [None, 16])
def test_the_probability_has_the_layout_of_the_image(axis: int | None, tile: int | None) -> None:
    given, _ = damaged(clean(channels=1 if axis is None else 3))
    mask = np.ones(given.shape[:2], dtype=bool)
    mask[:4, :4] = False
    image = given[..., 0] if axis is None else np.moveaxis(given, 2, axis)
    recovery = recover_image(image, mask=mask, tile=tile, **{**TINY, "iterations": 30})
    p = recovery.corruption_probability
    assert (p.shape, p.dtype) == (image.shape, np.float32)
    assert p.min() >= 0
    assert 0.1 < p.max() <= 1
    p = p[..., None] if axis is None else np.moveaxis(p, axis, 2)
    assert (p[:4, :4] == 0).all()
    found = recovery._outcome.corruption_probability
    assert found is not None
    assert np.array_equal(p, found.permute(1, 2, 0))


def test_no_probability_before_the_corruption_is_known() -> None:
    for preset in ("quick", "paper"):
        assert recover_image(damaged(clean())[0], **{**TINY, "preset": preset}).corruption_probability is None


# ------------------------------------------------------------------------------------------------ interrupted, diverged


def interrupt_at(iteration: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Press Ctrl-C within the block that ends at an iteration."""
    advance = BatchState.advance

    def pressed(state: BatchState, iterations: int) -> list[int]:
        diverged = advance(state, iterations)
        if state.iteration == iteration:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return diverged

    monkeypatch.setattr(BatchState, "advance", pressed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it


def test_ctrl_c_returns_the_current_result(monkeypatch: pytest.MonkeyPatch) -> None:
    given = damaged(clean())[0]
    expected = recover_image(given, **{**TINY, "iterations": 20})
    interrupt_at(20, monkeypatch)
    with pytest.warns(RuntimeWarning, match=r"^interrupted after 20 of 60 iterations; returning the current result$"):
        recovery = recover_image(given, **{**TINY, "iterations": 60})
    assert (recovery.status, recovery.iterations, recovery.history["iteration"]) == ("interrupted", 20, [20])
    assert (recovery.image == expected.image).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_does_not_fill_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt_at(20, monkeypatch)
    with pytest.warns(RuntimeWarning, match="interrupted after 20 of 60 iterations"):
        recover_image(damaged(clean())[0], **{**TINY, "iterations": 60, "progress": True})
    assert "20/60" in capsys.readouterr().err.rpartition("\r")[2]


def test_ctrl_c_twice_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(20, monkeypatch, times=2)
    with pytest.raises(KeyboardInterrupt):
        recover_image(damaged(clean())[0], **{**TINY, "iterations": 60})
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_the_first_result_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "step", lambda run: os.kill(os.getpid(), signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        recover_image(damaged(clean())[0], tile=16, **TINY)


def test_ctrl_c_leaves_tiles_that_have_not_begun_as_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = damaged(clean())[0]
    interrupt_at(1, monkeypatch)  # within the first tile
    with pytest.warns(RuntimeWarning, match="interrupted after 0 of 60 iterations"):
        recovery = recover_image(given, tile=16, **{**TINY, "iterations": 60})
    assert recovery.status == "interrupted"
    assert recovery.corruption_probability is None
    assert (recovery.image[16:, 16:] == given[16:, 16:]).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_divergence_is_reported() -> None:
    with pytest.warns(
        RuntimeWarning, match=r"^diverged after \d+ of 40 iterations; .* Use a smaller alpha, got 1e\+15$"
    ):
        recovery = recover_image(damaged(clean())[0], alpha=1e15, **{**TINY, "iterations": 40})
    assert recovery.status == "diverged"
    assert recovery.iterations < 40


# ------------------------------------------------------------------------------------------------------------- progress


def test_progress_bar_is_optional(capsys: pytest.CaptureFixture[str]) -> None:
    recover_image(clean(), **TINY)
    assert capsys.readouterr() == ("", "")  # no terminal
    recover_image(damaged(clean())[0], progress=True, tile=16, truth=clean(), **TINY)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"100%.* 12/12 .*psnr \d+\.\d+ dB", err)


def test_notebooks_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    shells = {"a notebook": {"IPKernelApp": {}}, "a terminal": {}}
    for where, config in shells.items():
        shell = SimpleNamespace(config=config)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert in_notebook() == (where == "a notebook")


def test_integers_that_double_precision_merges_are_refused() -> None:
    image = np.arange(144, dtype=np.int64).reshape(12, 12)
    kept = recover_image(image + 2**40, preset="instant", progress=False, device="cpu").image
    assert (kept - 2**40 == recover_image(image, preset="instant", progress=False, device="cpu").image).all()
    with pytest.raises(ValueError, match=r"integers beyond ±2\*\*53 must be resolved by .*; subtract an offset"):
        recover_image(image + 2**60, preset="instant", progress=False, device="cpu")


def test_an_outlier_of_any_size_changes_no_other_value() -> None:
    image = np.add.outer(np.arange(12.0), np.arange(12.0))
    results = []
    for outlier in (1e30, 1e300):
        image[3, 4] = outlier
        results.append(recover_image(image, preset="instant", progress=False, device="cpu").image)
    assert (results[0] == results[1]).all()


def test_tiles_may_be_rectangular() -> None:
    image = clean(24, 40)
    whole, rows = (recover_image(image, progress=False, **TINY, tile=tile) for tile in (64, (24, 64)))
    assert np.array_equal(whole.image, rows.image)
    squares, columns = (recover_image(image, progress=False, **TINY, tile=tile) for tile in (24, (24, 24)))
    assert np.array_equal(squares.image, columns.image)
    with pytest.raises(ValueError, match="tile must be a whole number of at least 8, got 4"):
        recover_image(image, progress=False, **TINY, tile=(24, 4))


@pytest.mark.parametrize("size", [(4, 250), (250, 7)])
def test_narrow_images_are_divided_lengthwise(size: tuple[int, int]) -> None:
    found = recover_image(clean(*size), progress=False, **TINY)
    assert found.image.shape == (*size, 3)
