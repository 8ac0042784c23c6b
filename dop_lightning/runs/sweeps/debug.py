"""Run the points of a sweep in this process, one after the other."""

import traceback
from collections.abc import Callable, Sequence

from dop_lightning.runs.sweeps.ended import Ended, judge
from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import LOG, begin, record_digest


def run(
    points: Sequence[Point], fit: Callable[[Sequence[str]], int], report: Callable[[str], None]
) -> tuple[list[Ended], int]:
    """Run points in this process, with their output on its stdout and stderr.

    Args:
        points: points to run.
        fit: ``dop fit``.
        report: called with each progress message.

    Returns:
        The results of the points, and 0, or the exit status of a stopped point, after which no other is started.
    """
    ended: list[Ended] = []
    for number, point in enumerate(points, 1):
        report(f"{number} of {len(points)}, {point.name}: {point.folder}")
        digest = begin(point)
        log = point.folder / LOG
        try:
            status = fit(point.arguments)
        except Exception as error:  # any error; the other points are still run
            log.write_text(f"$ {point.command}\n{traceback.format_exc()}", encoding="utf-8")
            message = " ".join(str(error).split())
            ended.append(
                Ended(point, message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}", log)
            )
            continue
        if status == 0:
            record_digest(point, digest)
        ended.append(judge(point, status))
        if ended[-1].stopped:
            return ended, status
    return ended, 0
