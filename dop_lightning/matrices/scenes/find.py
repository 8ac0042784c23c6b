"""Find the frames of a scene by path."""

from pathlib import Path

from dop_lightning.foundation.user_paths import user_path
from dop_lightning.images.formats import IMAGE_SUFFIXES
from dop_lightning.matrices.scenes.folder import FolderFrames
from dop_lightning.matrices.scenes.frames import Frames
from dop_lightning.matrices.scenes.video import VideoFrames


def find_frames(path: str | Path, grey: bool = False) -> Frames:
    """Return the frames of a video, or of a folder of pictures sorted by name, with 2 before 10.

    Args:
        path: the video or the folder.
        grey: whether to convert frames to grey.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the path is neither a video nor a folder with pictures, or there are fewer than two frames.
        ImportError: the path is a video, and PyAV is not installed.
    """
    path = user_path(path)
    frames: Frames = FolderFrames(path, grey) if path.is_dir() else VideoFrames(path, grey)
    if len(frames) < 2:
        hint = "; to use pictures as frames, pass their folder" if path.suffix.lower() in IMAGE_SUFFIXES else ""
        raise ValueError(f"{path}: a scene must have at least two frames, got {len(frames)}{hint}")
    return frames
