"""The preview in the folder of an image during the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image

from dop_lightning.lightning.callbacks import PreviewFile, RecoveryCallback
from dop_lightning.lightning.callbacks import preview as module


class Watch(RecoveryCallback):
    """Keep the preview in the folder after each block of a batch."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def on_block(self, trainer: pl.Trainer, module: Any, state: Any, iterations: int) -> None:
        for path in Path(trainer.default_root_dir).glob("*/preview.png"):
            with Image.open(path) as image:
                self.seen.append(np.array(image))

    @property
    def changes(self) -> int:
        return sum(not np.array_equal(one, two) for one, two in zip(self.seen, self.seen[1:], strict=False))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Callable[[], PreviewFile]:
    """Makes previews that need not care for the time that they take."""
    monkeypatch.setattr(module, "MAX_TIME_FRACTION", 1e9)
    monkeypatch.setattr(module, "MAX_EVALUATION_FRACTION", 1e9)
    return lambda: PreviewFile(1e-9)


def test_preview_follows_an_image(fit, image_method, images, tmp_path: Path, capsys, always) -> None:
    watch = Watch()
    run = fit(tmp_path, image_method(), images(), 50, always(), watch)
    assert watch.seen[0].shape == (16, 16)
    assert len(watch.seen) == 5
    assert watch.changes == 4
    (name,) = run.table
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Preview")]
    assert said == [f"Preview, updated regularly: {tmp_path / name / 'preview.png'}"]
    assert not (tmp_path / name / "preview.png").exists()  # recovered.png has taken its place


def test_preview_shows_the_current_result(fit, image_method, images, stop_at, tmp_path: Path, always) -> None:
    watch = Watch()
    run = fit(tmp_path, image_method(), images(), 50, always(), watch, stop_at(20))
    (name,) = run.table
    with Image.open(tmp_path / name / "recovered.png") as recovered:
        assert np.array_equal(watch.seen[-1], np.array(recovered))


def test_tiles_appear_one_after_the_other(fit, image_method, images, tmp_path: Path, always) -> None:
    watch = Watch()
    data = images(noise=None, resize=40, tile=24)
    run = fit(tmp_path, image_method(), data, 10, always(), watch)
    (name,) = run.table
    observation = np.array(Image.open(tmp_path / name / "observation.png"))
    first, *_, last = watch.seen
    (mosaic,) = data.mosaics.values()
    rows, columns = mosaic.grid.window(*mosaic.grid.places[-1])
    alone = (slice(mosaic.grid.tops[-2] + 24, None), slice(mosaic.grid.lefts[-2] + 24, None))
    assert not np.array_equal(first, observation)
    assert np.array_equal(first[alone], observation[alone])  # not begun
    assert not np.array_equal(last[rows, columns], observation[rows, columns])
    assert watch.changes >= 3
    assert not (tmp_path / name / "preview.png").exists()


def test_preview_does_not_change_results(fit, image_method, images, tmp_path: Path, always) -> None:
    data = {"noise": None, "resize": 40, "tile": 24}
    with_it = fit(tmp_path / "with", image_method(), images(**data), 30, always())
    without = fit(tmp_path / "without", image_method(), images(**data), 30)
    with_it.assert_equals(without)


def test_preview_takes_little_time(fit, image_method, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds pass only in evaluations, of which the first is free; later ones would take more than their share."""
    now = [0.0]

    class Clock:
        perf_counter = staticmethod(lambda: now[0])

    looks = []
    evaluate = module.PreviewFile._evaluate_state

    def slow(self: PreviewFile, *arguments: Any) -> None:
        looks.append(now[0])
        evaluate(self, *arguments)
        now[0] += 1.0
        self._looking = 1.0

    monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(module.PreviewFile, "_evaluate_state", slow)
    fit(tmp_path, image_method(), images(), 100, PreviewFile(1e-9))
    assert looks == [0.0]


@pytest.mark.parametrize("kind", ["off", "matrices"])
def test_no_preview_if_disabled_or_for_matrices(
    kind: str, fit, image_method, images, matrix_method, matrices, tmp_path: Path, capsys, always
) -> None:
    watch = Watch()
    if kind == "off":
        fit(tmp_path, image_method(), images(), 20, PreviewFile(), watch)
    else:
        fit(tmp_path, matrix_method(), matrices(), 200, always(), watch)
    assert watch.seen == []
    assert "Preview" not in capsys.readouterr().err


def test_unwritable_folder_does_not_end_the_run(
    fit, image_method, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    assert fit(tmp_path, image_method(), images(), 20, always()).statuses == ["done"]


def test_seconds_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every must be"):
        PreviewFile(0)


def test_recover_enables_the_preview(tmp_path: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    write = module.write_preview

    def watched(path: Path, picture: np.ndarray) -> None:
        write(path, picture)
        seen.append((path, picture.shape))

    monkeypatch.setattr(module, "write_preview", watched)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    options = ("--preset", "quick", "--width", "4", "--iterations", "2", "--device", "cpu")
    assert dop("recover", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), *options).status == 0
    assert seen[0] == (tmp_path / "out" / "photo" / "preview.png", (24, 32, 3))
    assert not (tmp_path / "out" / "photo" / "preview.png").exists()
