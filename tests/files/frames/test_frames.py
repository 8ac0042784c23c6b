"""Frames of videos and folders, and videos out."""

import builtins
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dop_lightning.files.frames import FolderFrames, VideoFrames, VideoWriter, find_frames
from tests.scenes import scene, write_folder, write_video


@pytest.mark.parametrize("size", [(20, 32), (21, 33)])
def test_a_video_comes_back_nearly_as_it_was(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = np.zeros((4, *size, 3), dtype=np.uint8)
    frames[:, 5:, 7:] = 200
    read = find_frames(write_video(tmp_path / "a.mp4", frames))
    assert isinstance(read, VideoFrames)
    assert (len(read), read.shape, read.rate, read.dtype) == (4, (3, *size), Fraction(10), np.uint8)
    again = np.stack(list(read)).transpose(0, 2, 3, 1)
    assert np.abs(again.astype(int) - frames).mean() < 2
    assert read.frame_name(0) == "000001"
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_grey_frames_have_the_weights_of_grey_images(tmp_path: Path) -> None:
    frames, _ = scene()
    video = find_frames(write_video(tmp_path / "a.mp4", frames), grey=True)
    folder = find_frames(write_folder(tmp_path / "folder", frames), grey=True)
    assert video.shape == folder.shape == (1, 20, 32)
    assert np.abs(next(iter(video)).astype(int) - next(iter(folder))).mean() < 4


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    frames, _ = scene(colour=False)
    read = find_frames(write_folder(tmp_path / "folder", frames))
    assert isinstance(read, FolderFrames)
    assert [read.frame_name(index) for index in (0, 2, 10)] == ["frame0", "frame2", "frame10"]
    np.testing.assert_array_equal(np.stack(list(read))[:, 0], frames)
    np.testing.assert_array_equal(read.chosen([1, 11])[:, 0], frames[[1, 11]])


def test_frames_of_more_than_8_bits_keep_their_depth(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 60).reshape(3, 4, 5).astype(np.float32)
    for index, frame in enumerate(values):
        np.save(tmp_path / f"{index}.npy", frame[:, :, None].repeat(1, axis=2))
    read = find_frames(tmp_path)
    assert read.dtype == np.float32
    assert read.white == 1.0
    assert len(np.unique(np.stack(list(read)))) > 50


def test_frames_of_other_sizes_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, np.zeros((2, 8, 9, 3), dtype=np.uint8))
    write_folder(tmp_path, np.zeros((1, 8, 10, 3), dtype=np.uint8), "z{}.png")
    with pytest.raises(ValueError, match=r"z0.png: frames must have the size of frame0.png, 9×8 .* got 10×8"):
        list(find_frames(tmp_path))


def test_what_is_no_scene_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.mp4: there is no such file"):
        find_frames(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ValueError, match=r"text.mp4: must be a video"):
        find_frames(tmp_path / "text.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: the folder must hold a file"):
        find_frames(tmp_path / "empty")
    one = write_folder(tmp_path / "one", np.zeros((1, 8, 9, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"one: there must be at least two frames, got 1"):
        find_frames(one)


def test_a_video_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("old")
    good, bad = np.zeros((8, 8), dtype=np.uint8), np.zeros((8, 8, 4), dtype=np.uint8)

    def write() -> None:
        with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
            writer.write(good)
            writer.write(bad)

    with pytest.raises(ValueError, match="rray"):
        write()
    assert (tmp_path / "a.mp4").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_without_pyav_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_text("x")
    monkeypatch.delitem(sys.modules, "av", raising=False)
    real = builtins.__import__

    def fail(name: str, *rest: object) -> object:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ImportError, match=r"dop_lightning\[video\]"):
        find_frames(tmp_path / "a.mp4")
