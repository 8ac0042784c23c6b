"""Read and write videos with PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dop_lightning.foundation.atomic import record_file
from dop_lightning.foundation.find import existing_file
from dop_lightning.images.formats.resampling import LUMA
from dop_lightning.matrices.scenes.frames import Frames

if TYPE_CHECKING:
    from types import TracebackType

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".gif")
"""Suffixes of videos. The content determines whether a file is a video."""

QUALITY = "16"
"""x264's constant rate factor: the result is hardly distinguishable from the input frames."""

PRESET = "veryfast"
"""x264's preset: a third of the default's time at the same quality."""

ALL = 0.9
"""Minimum fraction of a video's duration that its frames cover if it is complete; sound may be slightly longer."""


def require_av() -> Any:
    """Import PyAV.

    Raises:
        ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError('videos require PyAV: pip install "dop_lightning[video]"') from error
    return av


class VideoFrames(Frames):
    """First video stream of a file.

    Args:
        path: file in any format that FFmpeg reads.
        grey: whether to convert frames to grey.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file does not contain a video.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: Path, grey: bool = False) -> None:
        require_av()
        self.path = existing_file(path)
        self._grey = grey
        self.dtype = np.dtype(np.uint8)
        with self._stream() as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise ValueError(f"{path}: must contain a video, got one without frames")
            self.shape = (1 if grey else 3, *_rotate_upright(first).shape[:2])
            rate = Fraction(stream.average_rate or stream.guessed_rate or 0).limit_denominator(1001)
            self.rate = rate or Fraction(25)
            self._start = float((stream.start_time or 0) * stream.time_base)
            self._duration = _duration(container, stream)
        self._count: int | None = None

    def __len__(self) -> int:
        if self._count is None:  # the frame count in the header may be wrong
            self._count, end = 0, None
            for frame in self._decode():
                self._count, end = self._count + 1, frame.time
            self._check_duration(end)
        return self._count

    def _check_duration(self, end: float | None) -> None:
        """Set :attr:`trouble` if the frames end before the duration in the header; FFmpeg ignores truncation."""
        if end is None or self._duration is None:
            return
        end += float(1 / self.rate) - self._start
        if end < ALL * self._duration:
            self.trouble = (
                f"{self.path}: frames end after {end:.3g} s of {self._duration:.3g} s, so the file may be truncated or "
                f"damaged; only the {self._count} frames before that are used"
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame in self._decode():
            pixels = _rotate_upright(frame)
            if pixels.shape[:2] != self.shape[1:]:
                (height, width), (other_height, other_width) = self.shape[1:], pixels.shape[:2]
                raise ValueError(
                    f"{self.path}: frames must have equal sizes, {width}×{height}, got {other_width}×{other_height}"
                )
            if self._grey:
                yield np.round(pixels @ LUMA.astype(np.float32)).astype(np.uint8)[None]
            else:
                yield np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _decode(self) -> Iterator[Any]:
        with self._stream() as (container, stream):
            stream.thread_type = "AUTO"
            yield from container.decode(stream)

    @contextmanager
    def _stream(self) -> Iterator[tuple[Any, Any]]:
        av = require_av()
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise ValueError(f"{self.path}: must contain a video, got none")
                yield container, container.streams.video[0]
        except av.FFmpegError as error:
            raise ValueError(f"{self.path}: must be a video, got another or damaged file ({error})") from error

    def frame_name(self, index: int) -> str:
        """Return the frame number from 1, with six digits."""
        return f"{index + 1:06d}"


def _duration(container: Any, stream: Any) -> float | None:
    """Return the duration in seconds from the header, or ``None`` if it is not specified."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _rotate_upright(frame: Any) -> np.ndarray:
    """Return the pixels of a frame in display orientation, ``(H, W, 3)``; phones store rotated frames."""
    pixels = frame.to_ndarray(format="rgb24")
    degrees = getattr(frame, "rotation", 0)  # counterclockwise; not available in PyAV 12
    return np.rot90(pixels, degrees // 90) if degrees % 90 == 0 else pixels


class VideoWriter:
    """Write frames to an MP4 file (H.264), which appears under its name once it is complete.

    Args:
        path: the file.
        rate: frames per second.

    Raises:
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av = require_av()
        self.path, self.rate = path, rate
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._stream: Any = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._with_final_name():
            self._container = self._av.open(str(self._temporary), "w", format="mp4")
        return self

    def write(self, picture: np.ndarray) -> None:
        """Append a frame, uint8 ``(H, W)`` or ``(H, W, 3)``."""
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], 3, axis=2)
        height, width = picture.shape[:2]
        if self._stream is None:
            self._stream = self._container.add_stream(
                "libx264", rate=self.rate, options={"crf": QUALITY, "preset": PRESET}
            )
            self._stream.width, self._stream.height = width, height
            # yuv420p, which all players support, requires even sizes
            self._stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
            self._stream.codec_context.thread_count = 1
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        with self._with_final_name():
            self._container.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                with self._with_final_name():
                    self._container.mux(self._stream.encode())
            with self._with_final_name():
                self._container.close()
            if kind is None:
                self._temporary.replace(self.path)
                record_file(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _with_final_name(self) -> Iterator[None]:
        """Replace the name of the temporary file, which no longer exists, by the final one in errors of writing."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error
