"""Locate errors in user code. No heavy package is imported here."""

import functools
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

MISTAKES = (ValueError, OSError, ImportError)
"""Errors that are printed in one line. Other errors in user code are printed with their traceback."""


def fault_of(error: BaseException) -> BaseException | None:
    """Return the error in user code that caused ``error``, if it is one that needs a traceback.

    The causes are searched too, because libraries wrap errors of constructors in other errors.
    """
    return next((one for one in _error_chain(error) if not isinstance(one, MISTAKES) and _user_frames(one)), None)


def place_of(error: BaseException) -> str:
    """Return ``FILE, line N`` if user code raised ``error``, otherwise an empty string."""
    first = list(_error_chain(error))[-1]
    frames = traceback.extract_tb(first.__traceback__)
    if not frames or not _is_user_code(frames[-1].filename):
        return ""
    return f"{frames[-1].filename}, line {frames[-1].lineno}"


def describe(error: BaseException) -> str:
    """Return the traceback of an error in user code, starting there; empty if no user code is involved."""
    fault = fault_of(error)
    if fault is None:
        return ""
    lines = traceback.format_list(_user_frames(fault)) + traceback.format_exception_only(fault)
    return f"Traceback of your code (DOP_TRACEBACK=1 shows all of it):\n{''.join(lines)}".rstrip()


def _error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an error, starting with the first one in user code."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((place for place, frame in enumerate(frames) if _is_user_code(frame.filename)), len(frames))
    return list(frames[first:])


@functools.cache
def _is_user_code(file: str) -> bool:
    """Return whether a file is user code: not part of this package, Python, or an installed package."""
    if file.startswith("<"):
        return False
    paths = sysconfig.get_paths()
    others = [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    others += [Path(__file__).parents[1]]
    path = Path(file).resolve()
    return not any(path.is_relative_to(other.resolve()) for other in others)
