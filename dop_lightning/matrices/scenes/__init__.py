"""Read frames of a scene from a video or a folder, one at a time, and write videos.

Shapes: C channels (1 or 3), H × W pixels of a frame.
"""

from dop_lightning.matrices.scenes.find import find_frames
from dop_lightning.matrices.scenes.folder import FolderFrames
from dop_lightning.matrices.scenes.frames import Frames
from dop_lightning.matrices.scenes.video import VIDEO_SUFFIXES, VideoFrames, VideoWriter

__all__ = ["VIDEO_SUFFIXES", "FolderFrames", "Frames", "VideoFrames", "VideoWriter", "find_frames"]
