"""Progress bar in notebooks and on terminals."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dop_lightning.foundation.quiet import quiet
from dop_lightning.foundation.terminal import is_terminal

SHOWN = {"psnr": "psnr {:.2f} dB", "loss": "loss {:.3g}"}
"""Formats of scores by tag; the first available score is shown."""

Report = Callable[[int, Mapping[str, float]], None]
"""Callback that receives the number of iterations done, and scores."""


@contextmanager
def progress_bar(wanted: bool | None, total: int) -> Iterator[Report]:
    """Show a progress bar if requested, and yield the function that advances it.

    Args:
        wanted: whether to show the bar; ``None`` shows it in notebooks and if stderr is a terminal. Programs without
            stderr have no bar.
        total: total number of iterations.
    """
    shown = in_notebook() or is_terminal(sys.stderr) if wanted is None else wanted
    if not shown or sys.stderr is None:
        yield lambda *_: None
        return
    with quiet():  # no warning if ipywidgets is missing: a text bar is fine
        from tqdm.auto import tqdm
    with tqdm(total=total, unit="it") as bar:

        def report(done: int, scores: Mapping[str, float]) -> None:
            tag = next((tag for tag in SHOWN if tag in scores), None)
            if tag is not None:
                bar.set_postfix_str(SHOWN[tag].format(scores[tag]), refresh=False)
            bar.update(done)

        yield report


def in_notebook() -> bool:
    """Return whether the process is a Jupyter kernel."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
