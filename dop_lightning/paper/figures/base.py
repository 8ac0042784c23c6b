"""Interface of a figure: its computation, table, drawing, and verdict."""

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
    """Function that does the runs of a figure."""

    def __call__(self, name: str, configs: Sequence[Path], folder: Path, options: Sequence[str] = ()) -> int:
        """Start or resume a run with the given name, configs and overriding options; return the exit status."""


class Figure(ABC):
    """Figure of the paper, computed into a folder with ``runs/``, ``<name>.csv``, ``<name>.png`` and ``<name>.pdf``.

    Attributes:
        name: name on the command line.
        size: width and height in inches.
        columns: printed columns of the table, ``(key, title, format)``.
    """

    name: ClassVar[str]
    size: ClassVar[tuple[float, float]]
    columns: ClassVar[Sequence[tuple[str, str, str]]]

    def use_images(self, folder: Path) -> None:
        """Read the paper's images from a folder.

        Raises:
            ValueError: the figure does not show images.
        """
        raise ValueError(f"--images is only supported for figures of images, got figure {self.name}")

    def use_rivals(self, names: Sequence[str], runs: Sequence[Path]) -> None:
        """Add rivals: configs of ``configs/rivals/`` by name, and folders of finished runs.

        Raises:
            ValueError: the figure does not support rivals, or not these.
        """
        raise ValueError(f"--rivals and --runs are only supported for figure grid, got figure {self.name}")

    @abstractmethod
    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Compute missing parts; return the exit status.

        Raises:
            ValueError: the folder holds other results.
        """

    @abstractmethod
    def table(self, out: Path) -> list[Row]:
        """Return the numbers of the figure, from the results in ``out``."""

    @abstractmethod
    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Draw a table on a matplotlib figure."""

    @abstractmethod
    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Return a few lines on whether the figure shows what it should."""

    def summary(self, rows: Sequence[Row]) -> str:
        """Return the printed table; by default, all rows."""
        return render_table(rows, self.columns)

    def write(self, rows: Sequence[Row], out: Path) -> None:
        """Write the table and the figure."""
        atomic_text(out / f"{self.name}.csv", csv_text(rows))
        with canvas(*self.size) as drawing:
            self.draw(rows, drawing)
            save(drawing, out / self.name)


class FittedFigure(Figure):
    """Figure of runs of ``dop fit``, one config per run.

    Attributes:
        methods: label of each run, by the name of its config.
    """

    methods: ClassVar[Mapping[str, str]]

    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Start missing runs and resume interrupted ones."""
        for run in self.methods:
            if status := fit(run, layers(self.name, run, scale), out / RUNS / run):
                return status
        return 0

    def results(self, out: Path, run: str) -> list[Row]:
        """Return the results of a run with attributes and scores, without problems that ended before being scored."""
        return self.results_of(out / RUNS / run)

    @staticmethod
    def results_of(folder: Path) -> list[Row]:
        """Return the results of the run in a folder, like :meth:`results`."""
        found = read_results(folder)
        return [{**result["attributes"], **result} for result in found if "relative_error" in result]


class ComputedFigure(Figure):
    """Figure computed without runs, from the settings in ``paper.yaml`` or ``small.yaml``."""

    @abstractmethod
    def rows(self, settings: Mapping[str, Any]) -> list[Row]:
        """Return the table for the given settings.

        Raises:
            ValueError: a setting is wrong.
        """

    @classmethod
    def settings(cls, scale: Scale) -> dict[str, Any]:
        """Return the settings of a scale."""
        text = (figure_folder(cls.name) / f"{scale}.yaml").read_text(encoding="utf-8")
        return dict(yaml.safe_load(text))

    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Compute the table, unless it is in the folder."""
        settings, path = self.settings(scale), self._path(out)
        if path.is_file():
            if _read(path)["settings"] == settings:
                return 0
            raise ValueError(f"{path}: computed with other settings; remove it, or choose another folder")
        atomic_json(path, {"settings": settings, "rows": self.rows(settings)})
        return 0

    def table(self, out: Path) -> list[Row]:
        """Return the computed table."""
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
    """Return a table as CSV, with numbers rounded to six digits and unknown values empty."""
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
    """Return the prefix of a line of a verdict.

    >>> mark(True)
    'yes'
    """
    return "yes" if good else "NO "


def seconds_of(results: Iterable[Mapping[str, Any]]) -> float:
    """Return the total seconds of the iterations of all problems of a run."""
    return float(sum(result["seconds"] for result in results))
