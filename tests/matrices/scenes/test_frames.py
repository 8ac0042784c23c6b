"""Frames of videos and folders, and videos out."""

import builtins
import errno
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dop_lightning.matrices.scenes import FolderFrames, VideoFrames, VideoWriter, find_frames
from tests.matrices.scenes.builders import scene, write_folder, write_video


@pytest.mark.parametrize("size", [(20, 32), (21, 33)])
def test_video_round_trip_is_nearly_exact(tmp_path: Path, size: tuple[int, int]) -> None:
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


def test_a_dark_first_frame_does_not_set_the_range(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(20000, 50000, (3, 12, 12)).astype(np.uint16)
    values[0] //= 500  # within 8 bits
    for index, frame in enumerate(values):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    read = find_frames(tmp_path)
    assert read.dtype == np.float32
    np.testing.assert_allclose(np.stack(list(read))[:, 0], values / 65535, atol=1e-6)


def test_frames_of_different_sizes_are_reported(tmp_path: Path) -> None:
    write_folder(tmp_path, np.zeros((2, 8, 9, 3), dtype=np.uint8))
    write_folder(tmp_path, np.zeros((1, 8, 10, 3), dtype=np.uint8), "z{}.png")
    with pytest.raises(ValueError, match=r"z0.png: frames must have the size of frame0.png, 9×8 .* got 10×8"):
        list(find_frames(tmp_path))


def test_non_scenes_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.mp4: no such file"):
        find_frames(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ValueError, match=r"text.mp4: must be a video"):
        find_frames(tmp_path / "text.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: the folder contains no file with suffix [^;]*$"):
        find_frames(tmp_path / "empty")
    one = write_folder(tmp_path / "one", np.zeros((1, 8, 9, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"one: a scene must have at least two frames, got 1"):
        find_frames(one)
    with pytest.raises(ValueError, match=r"frame0.png: .* got 1; to use pictures as frames, pass their folder"):
        find_frames(one / "frame0.png")


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_frames_of_a_phone_are_upright(tmp_path: Path, matrix: tuple[int, int, int, int], turns: int) -> None:
    frames = scene()[0][:3]
    content = bytearray(write_video(tmp_path / "a.mp4", frames).read_bytes())
    lying = next(iter(find_frames(tmp_path / "a.mp4")))
    start = content.find(b"tkhd") + 44  # the display matrix of a track
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(content)
    read = find_frames(tmp_path / "phone.mp4")
    expected = np.rot90(lying, turns, axes=(1, 2))
    assert read.shape == expected.shape
    np.testing.assert_array_equal(next(iter(read)), expected)


def test_truncated_video_is_reported(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_video(tmp_path / "whole.mp4", np.tile(scene()[0], (3, 1, 1, 1)))
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(str(tmp_path / "whole.mkv"), "w") as target:
        stream = target.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 20, "yuv420p"
        for frame in source.decode(video=0):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")))
        target.mux(stream.encode())
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    whole, cut = find_frames(tmp_path / "whole.mkv"), find_frames(tmp_path / "cut.mkv")
    assert (len(whole), whole.trouble) == (180, "")
    assert 2 <= len(cut) < 150
    assert f"cut.mkv: frames end after {len(cut) / 10:.3g} s of 18 s" in cut.trouble


def test_full_disk_is_reported_with_the_name_of_the_video(tmp_path: Path) -> None:
    class Full:
        def __init__(self, container: Any) -> None:
            self.close, self.add_stream = container.close, container.add_stream

        def mux(self, packets: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".a.mp4.tmp"))

    def write() -> None:
        with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
            writer._container = Full(writer._container)
            writer.write(np.zeros((8, 8), dtype=np.uint8))

    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.mp4'"):
        write()
    assert not list(tmp_path.iterdir())


def test_unfinished_video_leaves_no_file(tmp_path: Path) -> None:
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


def test_missing_pyav_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
