"""The interface of a figure: what it is computed from, its table, its drawing, and what is to be seen in it."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml

from dop_lightning.foundation.atomic import atomic_json, atomic_text
from dop_lightning.foundation.plotting import canvas, save
from dop_lightning.paper.figures.configs import Scale, figure_folder, layers
from dop_lightning.runs.results import read_results, render_table

Row = dict[str, Any]

RUNS = "runs"


class Fit(Protocol):
    """What does the runs of a figure."""

    def __call__(self, name: str, configs: Sequence[Path], folder: Path, options: Sequence[str] = ()) -> int:
        """Do or finish the run of a name and configs, and of options over them, in a folder; the exit status."""


class Figure(ABC):
    """A figure of the paper, computed into a folder: ``runs/``, ``<name>.csv``, ``<name>.png``, ``<name>.pdf``.

    Attributes:
        name: as the command line has it.
        size: of the drawing, inches.
        columns: what of the table is printed, ``(key, title, format)``.
    """

    name: ClassVar[str]
    size: ClassVar[tuple[float, float]]
    columns: ClassVar[Sequence[tuple[str, str, str]]]

    def use_images(self, folder: Path) -> None:
        """Take the paper's images from a folder.

        Raises:
            ValueError: the figure shows no images.
        """
        raise ValueError(f"--images is for figures of images, got it for figure {self.name}")

    def use_rivals(self, names: Sequence[str], runs: Sequence[Path]) -> None:
        """Show rivals: configs of ``configs/rivals/`` by name, and folders of finished runs.

        Raises:
            ValueError: the figure shows no rivals, or these cannot be shown.
        """
        raise ValueError(f"--rivals and --runs are for figure grid, got them for figure {self.name}")

    @abstractmethod
    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Compute what is missing; the exit status.

        Raises:
            ValueError: the folder holds something else.
        """

    @abstractmethod
    def table(self, out: Path) -> list[Row]:
        """The numbers that are drawn, of what was computed in ``out``."""

    @abstractmethod
    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Draw a table on a matplotlib figure."""

    @abstractmethod
    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """What is to be seen, in a few lines."""

    def summary(self, rows: Sequence[Row]) -> str:
        """The table as printed; by default all of it."""
        return render_table(rows, self.columns)

    def write(self, rows: Sequence[Row], out: Path) -> None:
        """Write the table and the drawing."""
        atomic_text(out / f"{self.name}.csv", csv_text(rows))
        with canvas(*self.size) as drawing:
            self.draw(rows, drawing)
            save(drawing, out / self.name)


class FittedFigure(Figure):
    """A figure of runs of ``dop fit``, a config each.

    Attributes:
        methods: what each run is called in the drawing, by the name of its config.
    """

    methods: ClassVar[Mapping[str, str]]

    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Do the runs that are missing, and finish those that were interrupted."""
        for run in self.methods:
            if status := fit(run, layers(self.name, run, scale), out / RUNS / run):
                return status
        return 0

    def results(self, out: Path, run: str) -> list[Row]:
        """The results of a run, their attributes beside the scores; without problems that ended before a score."""
        return self.results_of(out / RUNS / run)

    @staticmethod
    def results_of(folder: Path) -> list[Row]:
        """The results of the run in a folder, as :meth:`results` returns them."""
        found = read_results(folder)
        return [{**result["attributes"], **result} for result in found if "relative_error" in result]


class ComputedFigure(Figure):
    """A figure of numbers that no run gives, computed from the settings in ``paper.yaml`` or ``small.yaml``."""

    @abstractmethod
    def rows(self, settings: Mapping[str, Any]) -> list[Row]:
        """The table for these settings.

        Raises:
            ValueError: a setting is wrong.
        """

    @classmethod
    def settings(cls, scale: Scale) -> dict[str, Any]:
        """The settings of a scale."""
        text = (figure_folder(cls.name) / f"{scale}.yaml").read_text(encoding="utf-8")
        return dict(yaml.safe_load(text))

    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Compute the table, unless the folder has it."""
        settings, path = self.settings(scale), self._path(out)
        if path.is_file():
            if _read(path)["settings"] == settings:
                return 0
            raise ValueError(f"{path}: computed with other settings; choose another folder, or remove that one")
        atomic_json(path, {"settings": settings, "rows": self.rows(settings)})
        return 0

    def table(self, out: Path) -> list[Row]:
        """What was computed."""
        return list(_read(self._path(out))["rows"])

    def _path(self, out: Path) -> Path:
        return out / RUNS / f"{self.name}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": content["settings"], "rows": content["rows"]}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not written by dop figure ({error})") from error


def csv_text(rows: Sequence[Row]) -> str:
    """A table as CSV, numbers to six digits; what is not known is empty."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def mark(good: bool) -> str:
    """How a verdict begins.

    >>> mark(True)
    'yes'
    """
    return "yes" if good else "NO "


def seconds_of(results: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of the iterations of all problems of a run."""
    return float(sum(result["seconds"] for result in results))
