"""Background, foreground and mask as files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.matrices.scenes import find_frames
from dop_lightning.matrices.scenes.background import Background, background_of, median_frame
from dop_lightning.matrices.scenes.layers import Layers, WritingStopped, layers, write_layers
from tests.matrices.scenes.builders import scene, write_folder


def background(frames: np.ndarray) -> Background:
    rows = frames.transpose(0, 3, 1, 2).reshape(len(frames), -1)
    median = median_frame(rows, 255.0)
    clean = torch.from_numpy(scene()[1].transpose(0, 3, 1, 2).reshape(60, -1).T / np.float32(255)) - median[:, None]
    return background_of(rows, 255.0, median, clean, 50.0, None, range(60))


def pictures(folder: Path, name: str) -> np.ndarray:
    return np.stack([np.array(Image.open(folder / name / f"frame{index}.png")) for index in range(60)])


def test_the_foreground_has_the_values_of_the_frame_inside_of_the_mask(tmp_path: Path) -> None:
    frames = scene()[0]
    read = find_frames(write_folder(tmp_path / "room", frames))
    written = write_layers(tmp_path / "out", read, layers(read, background(frames)), pictures=True)
    masks, foregrounds = (pictures(tmp_path / "out", name) for name in ("mask", "foreground"))
    assert set(np.unique(masks)) == {0, 255}
    np.testing.assert_array_equal(foregrounds, np.where(masks[..., None] == 255, frames, 0))
    moving = (np.abs(frames.astype(int) - scene()[1]).max(axis=-1) > 0).astype(bool)
    hits = (masks == 255) & moving
    assert 2 * hits.sum() > 0.85 * ((masks == 255).sum() + moving.sum())
    assert written.share == pytest.approx((masks == 255).mean(), abs=1e-6)
    videos = {name: np.stack(list(find_frames(tmp_path / "out" / f"{name}.mp4"))) for name in ("mask", "foreground")}
    np.testing.assert_array_equal(videos["mask"][:, 0] > 127, masks == 255)
    assert len(videos["foreground"]) == 60


@pytest.mark.parametrize("at_once", [1, 7])
def test_batches_do_not_change_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    frames = scene()[0]
    read = find_frames(write_folder(tmp_path / "room", frames))
    whole = background(frames)

    def masks() -> torch.Tensor:
        parts = list(layers(read, whole))
        assert [part.first for part in parts] == np.cumsum([0, *(len(part.masks) for part in parts)])[:-1].tolist()
        return torch.cat([part.masks for part in parts])

    expected = masks()
    assert expected.shape == (60, 20, 32)
    monkeypatch.setattr("dop_lightning.matrices.scenes.layers.AT_ONCE", at_once * 20 * 32 * 3)
    assert torch.equal(masks(), expected)


def test_writing_stops_between_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scene()[0]
    read = find_frames(write_folder(tmp_path / "room", frames))
    monkeypatch.setattr("dop_lightning.matrices.scenes.layers.AT_ONCE", 10 * 20 * 32 * 3)
    seen: list[int] = []

    def parts() -> Iterator[Layers]:
        for part in layers(read, background(frames)):
            seen.append(part.first)
            yield part

    with pytest.raises(WritingStopped):
        write_layers(tmp_path / "out", read, parts(), pictures=True, is_stopped=lambda: len(seen) == 3)
    assert len(seen) == 3
    assert not list((tmp_path / "out").glob("*.mp4")), "videos are there when they are complete"
    assert not list((tmp_path / "out").rglob(".*"))
    assert len(list((tmp_path / "out" / "mask").iterdir())) == 19


def test_progress_is_printed_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = scene()[0]
    read = find_frames(write_folder(tmp_path / "room", frames))
    monkeypatch.setattr("dop_lightning.matrices.scenes.layers.AT_ONCE", 20 * 20 * 32 * 3)
    monkeypatch.setattr("dop_lightning.matrices.scenes.layers.PROGRESS_INTERVAL", 0.0)
    write_layers(tmp_path / "out", read, layers(read, background(frames)), pictures=False)
    assert capsys.readouterr().err.splitlines() == [f"Writing out: {count}/60 frames" for count in (19, 39, 59, 60)]
