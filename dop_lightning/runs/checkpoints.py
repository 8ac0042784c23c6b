"""Read and check the files of checkpoints: those of a folder, a file per batch, and ordinary files of Lightning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dop_lightning.foundation.saved_state import load_state, state_checksum

FORMAT = "dop checkpoint 1"

LAST = Path("checkpoints") / "last.ckpt"
"""The checkpoint folder of a run."""

CALLBACKS, CALLBACKS_COPY = "callbacks", "callbacks.copy"
"""Two equal files of a folder: what callbacks of Lightning remember, such as the patience of EarlyStopping."""

RECOVERY, CHECKSUMS = "recovery", "checksums"
"""The entry of an ordinary file that holds the problems, and in it the checksums of all entries."""

_OF_BATCH = ("run", "time", "problems")
_OF_PROBLEM = ("status", "iteration", "evaluated", "ended", "seconds")


def previous(file: Path) -> Path:
    """Return the path of the file before that of a batch."""
    return file.with_name(f"{file.stem}.previous.pt")


def read_batch(file: Path, mark: str = "") -> dict[str, Any]:
    """Read the file of a batch.

    Args:
        file: in a checkpoint folder.
        mark: the fingerprint of the run; empty accepts the files of any run.

    Raises:
        ValueError: the file is damaged, incomplete, of another run, or no such file.
    """
    content = load_state(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{file}: damaged, or not a checkpoint written by dop (it says nothing of its format)")
    if lacking := _lacking(content):
        raise ValueError(f"{file}: not a whole checkpoint (it lacks {lacking})")
    if mark and content["run"] not in ("", mark):
        raise ValueError(f"{file}: of another run, of other settings or data")
    return content


def _lacking(content: Mapping[str, Any]) -> str:
    """The first key that the file of a batch should have and does not; else nothing."""
    for key in _OF_BATCH:
        if key not in content:
            return repr(key)
    if not isinstance(content["problems"], Mapping):
        return "its problems"
    for name, problem in content["problems"].items():
        for key in _OF_PROBLEM:
            if not isinstance(problem, Mapping) or key not in problem:
                return f"{key!r} of {name}"
    return ""


def add_checksums(checkpoint: dict[str, Any]) -> None:
    """Add the checksums of all entries to an ordinary checkpoint file, before it is written.

    Entries of other objects than tensors and plain values are left out. The checksums of the archive cover them.
    """
    sums = {}
    for key, value in checkpoint.items():
        try:
            sums[key] = state_checksum(value)
        except TypeError:
            continue
    checkpoint[RECOVERY][CHECKSUMS] = sums


def check_file_content(checkpoint: Mapping[str, Any], path: Any, keys: tuple[str, ...] = ()) -> None:
    """Check the entries of an ordinary checkpoint file. One of an earlier version has no checksums.

    Args:
        checkpoint: as it was read.
        path: of the file, for the message.
        keys: the entries to check; all by default.

    Raises:
        ValueError: an entry has another checksum than when it was written.
    """
    recovery = checkpoint[RECOVERY]
    for key, expected in recovery.get(CHECKSUMS, {}).items():
        if keys and key not in keys:
            continue
        value = checkpoint.get(key)
        if key == RECOVERY:
            value = {each: content for each, content in recovery.items() if each != CHECKSUMS}
        if state_checksum(value) != expected:
            raise ValueError(
                f"{path}: damaged, {key} has another checksum; if you have edited it, remove "
                f"checkpoint[{RECOVERY!r}][{CHECKSUMS!r}]"
            )
