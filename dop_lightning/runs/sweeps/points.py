"""Points of a sweep: a name, a folder and a ``dop fit`` command for each combination of values."""

import hashlib
import itertools
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dop_lightning.foundation.names import safe_name, unique_names
from dop_lightning.runs.sweeps.axes import CONFIG, NO_CONFIG, Axis, short_names


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        name: name of the point and of its folder.
        axes: its value on each axis, as typed.
        configs: config files, in order.
        options: settings in addition to the config files, ``(key, value)``.
        folder: folder of its run.
    """

    name: str
    axes: dict[str, str]
    configs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    folder: Path

    @property
    def arguments(self) -> list[str]:
        """Arguments of ``dop fit``."""
        files = [argument for path in self.configs for argument in ("--config", path)]
        # with "=", since a value may begin with a dash
        settings = [f"--{key}={value}" for key, value in self.options]
        return [*files, *settings, f"--trainer.default_root_dir={self.folder}"]

    @property
    def command(self) -> str:
        """Shell command that runs this point alone."""
        return shlex.join(["dop", "fit", *self.arguments])

    def digest(self) -> str:
        """Hash the contents of the config files and the settings, independent of file paths.

        Raises:
            OSError: a config file cannot be read.
        """
        contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.configs]
        return hashlib.sha256(json.dumps([contents, self.options]).encode()).hexdigest()[:16]


def make_points(
    axes: Sequence[Axis], configs: Sequence[str], options: Sequence[tuple[str, str]], out: Path
) -> list[Point]:
    """Return all combinations of the values of the axes; the last axis varies fastest.

    Args:
        axes: at least one axis, with different keys.
        configs: base configs; those of an axis follow them.
        options: settings of all points.
        out: folder of the sweep.

    Raises:
        ValueError: a setting is specified twice.
    """
    keys = [*(axis.key for axis in axes), *(key for key, _ in options)]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ValueError(f"a setting must be specified once, as an axis or as an option, got {twice[0]} twice")
    choices = [dict(zip(keys, values, strict=False)) for values in itertools.product(*(axis.values for axis in axes))]
    points = []
    for name, choice in zip(_names(choices), choices, strict=True):
        more = [path for path in choice.get(CONFIG, NO_CONFIG).split("+") if path != NO_CONFIG]
        settings = [*((key, value) for key, value in choice.items() if key != CONFIG), *options]
        # `dop fit` requires a part before its settings: model.signal before model.signal.init_args.width
        settings.sort(key=lambda setting: setting[0].count("."))
        points.append(Point(name, choice, (*configs, *more), tuple(settings), out / name))
    return points


def _names(choices: Sequence[dict[str, str]]) -> list[str]:
    """Return one name per point, independent of the order of the values and of the other points."""
    titles = short_names(list(choices[0]))
    names = [safe_name("_".join(f"{titles[key]}-{_format_value(key, value)}" for key, value in choice.items()))
             for choice in choices]  # fmt: skip
    count = Counter(name.lower() for name in names)
    for place, choice in enumerate(choices):
        if count[names[place].lower()] > 1:  # numbers would change if values are added or reordered
            names[place] += f"-{hashlib.sha256(json.dumps(choice).encode()).hexdigest()[:6]}"
    return unique_names(names)


def _format_value(key: str, value: str) -> str:
    """Return a value as part of a name; of config files, their stems.

    >>> (
    ...     _format_value("config", "configs/dip.yaml+small.yaml"),
    ...     _format_value("model.signal", "dop_lightning.model.signals.Factor"),
    ... )
    ('dip+small', 'dop_lightning.model.signals.Factor')
    """
    return "+".join(Path(path).stem for path in value.split("+")) if key == CONFIG else value
