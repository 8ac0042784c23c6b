"""The YAML files of the paper's figures, wherever the package is installed."""

from pathlib import Path
from typing import Literal

from dop_lightning.foundation.bundled import bundled_folder

Scale = Literal["small", "paper"]


def config_folder() -> Path:
    """Where the bundled configs are: inside an installed package, in ``configs/`` of a checkout."""
    return bundled_folder("configs", "configs")


def figure_folder(figure: str) -> Path:
    """``configs/paper/<figure>``."""
    return config_folder() / "paper" / figure


def rival_configs() -> dict[str, Path]:
    """Return the configs of the classical filters, ``configs/rivals/*.yaml``, by name."""
    return {path.stem: path for path in sorted((config_folder() / "rivals").glob("*.yaml"))}


def layers(figure: str, run: str, scale: Scale) -> list[Path]:
    """The configs of one run of a figure, to be merged in order.

    At scale ``paper`` it is ``<run>.yaml`` alone; at scale ``small``, over it, ``small/<run>.yaml`` where there is one,
    else ``small.yaml``.

    >>> [path.name for path in layers("1a", "dop", "small")]
    ['dop.yaml', 'small.yaml']
    """
    folder = figure_folder(figure)
    if scale == "paper":
        return [folder / f"{run}.yaml"]
    own = folder / "small" / f"{run}.yaml"
    return [folder / f"{run}.yaml", own if own.is_file() else folder / "small.yaml"]
