"""Read and check checkpoints: checkpoint folders with one file per batch, and ordinary Lightning files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dop_lightning.foundation.renamed import renamed_arguments
from dop_lightning.foundation.saved_state import load_state, state_checksum
from dop_lightning.runs.curves import curve_files

FORMAT = "dop checkpoint 1"

LAST = Path("checkpoints") / "last.ckpt"
"""The checkpoint folder, relative to the folder of the run."""

CALLBACKS, CALLBACKS_COPY = "callbacks", "callbacks.copy"
"""Two identical files of a checkpoint folder: states of Lightning callbacks, such as the patience of EarlyStopping."""

RECOVERY, CHECKSUMS = "recovery", "checksums"
"""Keys of an ordinary checkpoint file: the entry with the problems, and inside it the checksums of all entries."""

_OF_BATCH = ("run", "time", "problems")
_OF_PROBLEM = ("status", "iteration", "evaluated", "ended", "seconds")


def previous(file: Path) -> Path:
    """Return the path of the previous checkpoint of a batch."""
    return file.with_name(f"{file.stem}.previous.pt")


def lost_batches(run: Path) -> list[str]:
    """Return the labels of batches that have curves but no checkpoint. They restart from the beginning."""
    labels = [file.stem for file in curve_files(run)]
    files = {label: run / LAST / f"{label}.pt" for label in labels}
    return [label for label, file in files.items() if not file.exists() and not previous(file).exists()]


@renamed_arguments(mark="fingerprint")
def read_batch(file: Path, fingerprint: str = "") -> dict[str, Any]:
    """Read the checkpoint file of a batch.

    Args:
        file: path of the file, in a checkpoint folder.
        fingerprint: fingerprint of the run; if empty, files of any run are accepted.

    Raises:
        ValueError: the file is missing, damaged, incomplete or belongs to another run.
    """
    content = load_state(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{file}: damaged, or not a checkpoint written by dop (it has no known format)")
    if lacking := _missing_key(content):
        raise ValueError(f"{file}: incomplete checkpoint ({lacking} is missing)")
    if fingerprint and content["run"] not in ("", fingerprint):
        raise ValueError(f"{file}: belongs to another run, with other settings or data")
    return content


def _missing_key(content: Mapping[str, Any]) -> str:
    """Return the first required key that the file of a batch lacks; empty if the file is complete."""
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
    """Add the checksums of all entries to an ordinary checkpoint file before it is written.

    Only entries of tensors and plain values get a checksum. Entries with other objects are covered by the checksums of
    the archive.
    """
    sums = {}
    for key, value in checkpoint.items():
        try:
            sums[key] = state_checksum(value)
        except TypeError:
            continue
    checkpoint[RECOVERY][CHECKSUMS] = sums


def check_file_content(checkpoint: Mapping[str, Any], path: Any, keys: tuple[str, ...] = ()) -> None:
    """Compare the entries of an ordinary checkpoint file with their checksums.

    Files of earlier versions have no checksums and are not checked.

    Args:
        checkpoint: contents of the file.
        path: path of the file, for the error message.
        keys: entries to check; all by default.

    Raises:
        ValueError: the checksum of an entry differs.
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
                f"{path}: damaged, the checksum of {key} differs; if you edited the file, remove "
                f"checkpoint[{RECOVERY!r}][{CHECKSUMS!r}]"
            )
