"""Check the files of a run by their checksums, and report how a resumed run handles each damaged file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from dop_lightning.foundation.saved_state import check_archive, load_state
from dop_lightning.runs.checkpoints import (
    CALLBACKS,
    CALLBACKS_COPY,
    LAST,
    RECOVERY,
    check_file_content,
    previous,
    read_batch,
)
from dop_lightning.runs.copies import check_config, check_manifest, copy_of
from dop_lightning.runs.curves import curve_files, merged_curves, read_lines
from dop_lightning.runs.damage import find_damage
from dop_lightning.runs.folder import METRICS, RESULT, TABLE, RunFolder
from dop_lightning.runs.pieces import has_pieces
from dop_lightning.runs.results import render_csv

REWRITE_NOTE = "resuming the run rewrites it"
RESTORED = "resuming the run restores it from its copy"


class Verdict(NamedTuple):
    """A damaged file.

    Attributes:
        path: path of the file.
        what: description of the damage.
        then: how a resumed run handles it.
    """

    path: Path
    what: str
    then: str


def verify_run(run: Path) -> Iterator[Verdict]:
    """Yield the damaged files of a run. Files of earlier versions have no checksums and are not checked.

    Args:
        run: folder of the run.

    Raises:
        OSError: a file cannot be read.
    """
    yield from _settings(RunFolder(run))
    for file in sorted(run.glob("*/progress*.pt")):
        if what := _error_of(load_state, file):
            yield Verdict(file, what, "the run cannot be resumed until you remove progress.pt; it then starts again")
    yield from _checkpoints(run / LAST)
    yield from _curves(RunFolder(run))
    yield from _table(RunFolder(run))
    for file in sorted(run.rglob("*.ckpt")):
        if file.is_file() and (what := _error_of(_check_file, file)):
            yield Verdict(file, what, "it cannot be used as ckpt_path")
    for path in sorted(run.rglob(RESULT)):
        for damage in find_damage(path.parent.parent, path.parent.name):
            yield Verdict(damage.path, damage.what, REWRITE_NOTE)


def _settings(folder: RunFolder) -> Iterator[Verdict]:
    checks = [
        (
            folder.manifest_path,
            check_manifest,
            "no problem had started: remove it to start again"
            if folder.is_unstarted
            else "the run cannot be resumed, because the copy cannot be used either",
        ),
        (folder.config_path, check_config, f"{REWRITE_NOTE}; passing it as --config is refused"),
    ]
    for path, check, then in checks[:1] if _is_mapped_run(folder) else checks:
        of_copy, copy = check(copy_of(path)), copy_of(path)
        if what := check(path):
            is_whole = copy.is_file() and not of_copy
            yield Verdict(path, what, RESTORED if is_whole else then)
        if of_copy and copy.exists():
            yield Verdict(copy, of_copy, REWRITE_NOTE)


def _is_mapped_run(folder: RunFolder) -> bool:
    """Return whether matrices were read in pieces, judging by the missing config if the manifest is damaged."""
    try:
        return has_pieces(folder.path)
    except (OSError, ValueError):
        return not (folder.config_path.exists() or copy_of(folder.config_path).exists())


def _checkpoints(folder: Path) -> Iterator[Verdict]:
    whats = {file: _error_of(read_batch, file) for file in sorted(folder.glob("*.pt"))}
    for file, what in whats.items():
        if not what:
            continue
        is_older = file.name.endswith(".previous.pt")
        if is_older and file.with_name(file.name.replace(".previous", "")) in whats:
            yield Verdict(file, what, "the next checkpoint replaces it")
        elif is_older or whats.get(previous(file), "missing"):
            yield Verdict(file, what, "the run cannot be resumed until you remove it; its problems then start again")
        else:
            yield Verdict(file, what, f"a resumed run continues from {previous(file).name}")
    for name, other in ((CALLBACKS, CALLBACKS_COPY), (CALLBACKS_COPY, CALLBACKS)):
        file = folder / name
        if file.is_file() and (what := _error_of(load_state, file)):
            is_whole = (folder / other).is_file() and not _error_of(load_state, folder / other)
            yield Verdict(file, what, f"a resumed run reads {other}" if is_whole else "the run cannot be resumed")


def _curves(folder: RunFolder) -> Iterator[Verdict]:
    run, metrics = folder.path, folder.metrics_path
    files = list(curve_files(run))
    for file in files:
        if damaged := read_lines(file).damaged:
            yield Verdict(file, f"{damaged} damaged lines", f"resuming the run repairs it from {METRICS}")
    if files and metrics.is_file():
        known = set(merged_curves(run).encode().splitlines())
        odd = [line for line in metrics.read_bytes().splitlines() if line not in known]
        if odd and not any(read_lines(file).damaged for file in files):
            yield Verdict(metrics, f"{len(odd)} damaged lines", REWRITE_NOTE)


def _table(folder: RunFolder) -> Iterator[Verdict]:
    path = folder.path / TABLE
    try:
        expected = render_csv(folder.results())
    except (OSError, ValueError):  # a damaged file, which is reported itself
        return
    if path.is_file() and path.read_bytes() != expected.encode():
        yield Verdict(path, "differs from the results of the problems", f"dop table rebuilds it, and {REWRITE_NOTE}")


def _error_of(check: Callable[[Path], object], file: Path) -> str:
    """Return what is wrong with a file; empty if it is intact."""
    try:
        check(file)
    except ValueError as error:
        return str(error).removeprefix(f"{file}: ")
    return ""


def _check_file(file: Path) -> None:
    check_archive(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch raises many kinds, for example for files of other programs or with other objects
        return
    if isinstance(content, dict) and RECOVERY in content:
        check_file_content(content, file)
