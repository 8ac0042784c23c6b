"""Run the points of a sweep as tasks of a Ray cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from dop_lightning.runs.ray_tasks import RayTask, RayTasks, TaskEnd
from dop_lightning.runs.sweeps.ended import Ended, judge
from dop_lightning.runs.sweeps.local import PAUSE, Stop
from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import LOG, begin, open_log, record_digest

MAX_DEATHS = 2
"""Number of deaths after which a point is given up and reported."""


def run(points: Sequence[Point], tasks: RayTasks, report: Callable[[str], None]) -> tuple[list[Ended], int]:
    """Run points on a cluster. A point whose process, worker or node dies is run once more.

    The first Ctrl-C or SIGTERM makes the running points save and end, and starts no others. A second signal ends
    them immediately.

    Args:
        points: points to run.
        tasks: tasks of the cluster.
        report: called with each progress message.

    Returns:
        The results of the points that were started, and 0, or 130 or 143 after a signal.
    """
    digests = {point.name: begin(point) for point in points}
    by_name, ended, deaths = {point.name: point for point in points}, list[Ended](), Counter[str]()
    with Stop() as stop:
        for point in points:
            tasks.submit(_task(point))
        while tasks.is_busy:
            for end in tasks.wait(PAUSE):
                point = by_name[end.task.name]
                deaths[point.name] += bool(end.death)
                if end.death and deaths[point.name] < MAX_DEATHS and not stop.number:
                    report(f"{point.name}: {end.death}; started again")
                    tasks.submit(_task(point))
                    continue
                if end.status == 0:
                    record_digest(point, digests[point.name])
                ended.append(_point_result(point, end, deaths[point.name]))
                report(f"{point.name}: {ended[-1].failure or 'finished'}")
            if stop.unheeded:
                stop.unheeded -= 1
                if tasks.is_stopping:
                    return ended, 128 + stop.number
                report("Stopping: runs are saving (press again to stop immediately)")
                tasks.stop()
    return ended, 128 + stop.number if stop.number else 0


def _task(point: Point) -> RayTask:
    open_log(point).close()
    return RayTask(point.name, ["fit", *point.arguments], Path.cwd(), (point.folder / LOG).absolute())


def _point_result(point: Point, end: TaskEnd, deaths: int) -> Ended:
    log = point.folder / LOG
    if deaths >= MAX_DEATHS:
        return Ended(point, f"two processes died while they worked on it, the last one {end.death}", log)
    if end.status is None:
        return Ended(point, end.error or end.death, log)
    return judge(point, end.status)
