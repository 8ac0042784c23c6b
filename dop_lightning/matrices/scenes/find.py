"""The frames that a path names."""

from pathlib import Path

from dop_lightning.foundation.user_paths import user_path
from dop_lightning.images.formats import IMAGE_SUFFIXES
from dop_lightning.matrices.scenes.folder import FolderFrames
from dop_lightning.matrices.scenes.frames import Frames
from dop_lightning.matrices.scenes.video import VideoFrames


def find_frames(path: str | Path, grey: bool = False) -> Frames:
    """The frames of a video, or of a folder of pictures in the order of their names, where 2 comes before 10.

    Args:
        path: the video or the folder.
        grey: whether to make them grey.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is no video, a folder without pictures, or there are less than two frames.
        ImportError: a video without PyAV.
    """
    path = user_path(path)
    frames: Frames = FolderFrames(path, grey) if path.is_dir() else VideoFrames(path, grey)
    if len(frames) < 2:
        hint = "; pictures are a scene in a folder of their own" if path.suffix.lower() in IMAGE_SUFFIXES else ""
        raise ValueError(f"{path}: there must be at least two frames, got {len(frames)}{hint}")
    return frames
