"""The points of a sweep: for each combination of values, a name, a folder, and the ``dop fit`` that it stands for."""

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
        name: that of its folder.
        axes: its value on each axis, as it was typed.
        configs: the config files, in their order.
        options: the settings that go before them, ``(key, value)``.
        folder: of its run.
    """

    name: str
    axes: dict[str, str]
    configs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    folder: Path

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``dop fit``."""
        files = [argument for path in self.configs for argument in ("--config", path)]
        # with «=», since a value may begin with a dash
        settings = [f"--{key}={value}" for key, value in self.options]
        return [*files, *settings, f"--trainer.default_root_dir={self.folder}"]

    @property
    def command(self) -> str:
        """What to type to do this point alone."""
        return shlex.join(["dop", "fit", *self.arguments])

    def digest(self) -> str:
        """A hash of what is asked for: what is in the config files, and the settings; not where files are.

        Raises:
            OSError: a config file cannot be read.
        """
        contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.configs]
        return hashlib.sha256(json.dumps([contents, self.options]).encode()).hexdigest()[:16]


def make_points(
    axes: Sequence[Axis], configs: Sequence[str], options: Sequence[tuple[str, str]], out: Path
) -> list[Point]:
    """All combinations of the values of the axes, the last axis the fastest.

    Args:
        axes: at least one, of different settings.
        configs: the base configs; those of an axis come after them.
        options: settings that all points share.
        out: the folder of the sweep.

    Raises:
        ValueError: a setting is given twice.
    """
    keys = [*(axis.key for axis in axes), *(key for key, _ in options)]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ValueError(f"a setting must be given once, as an axis or as an option, got {twice[0]} twice")
    choices = [dict(zip(keys, values, strict=False)) for values in itertools.product(*(axis.values for axis in axes))]
    points = []
    for name, choice in zip(_names(choices), choices, strict=True):
        more = [path for path in choice.get(CONFIG, NO_CONFIG).split("+") if path != NO_CONFIG]
        settings = [*((key, value) for key, value in choice.items() if key != CONFIG), *options]
        # a part before its own settings, as `dop fit` wants them: model.signal before model.signal.init_args.width
        settings.sort(key=lambda setting: setting[0].count("."))
        points.append(Point(name, choice, (*configs, *more), tuple(settings), out / name))
    return points


def _names(choices: Sequence[dict[str, str]]) -> list[str]:
    """A name a point, which does not depend on the order of the values, nor on which others there are."""
    titles = short_names(list(choices[0]))
    names = [safe_name("_".join(f"{titles[key]}-{_shown(key, value)}" for key, value in choice.items()))
             for choice in choices]  # fmt: skip
    count = Counter(name.lower() for name in names)
    for place, choice in enumerate(choices):
        if count[names[place].lower()] > 1:  # numbers would change hands as values are added or change places
            names[place] += f"-{hashlib.sha256(json.dumps(choice).encode()).hexdigest()[:6]}"
    return unique_names(names)


def _shown(key: str, value: str) -> str:
    """A value in a name; of config files, what tells them apart.

    >>> _shown("config", "configs/dip.yaml+small.yaml"), _shown("model.signal", "dop_lightning.model.signals.Factor")
    ('dip+small', 'dop_lightning.model.signals.Factor')
    """
    return "+".join(Path(path).stem for path in value.split("+")) if key == CONFIG else value
