"""Locate the YAML files of the paper's figures."""

from pathlib import Path
from typing import Literal

from dop_lightning.foundation.bundled import bundled_folder

Scale = Literal["small", "paper"]


def config_folder() -> Path:
    """Return the folder of the bundled configs: inside an installed package, or ``configs/`` of a checkout."""
    return bundled_folder("configs", "configs")


def figure_folder(figure: str) -> Path:
    """Return ``configs/paper/<figure>``."""
    return config_folder() / "paper" / figure


def rival_configs() -> dict[str, Path]:
    """Return the configs of the classical filters, ``configs/rivals/*.yaml``, by name."""
    return {path.stem: path for path in sorted((config_folder() / "rivals").glob("*.yaml"))}


def layers(figure: str, run: str, scale: Scale) -> list[Path]:
    """Return the configs of one run of a figure, to be merged in order.

    At scale ``paper``, this is ``<run>.yaml``. At scale ``small``, it is followed by ``small/<run>.yaml`` if it exists,
    otherwise by ``small.yaml``.
    >>> [path.name for path in layers("1a", "dop", "small")]
    ['dop.yaml', 'small.yaml']
    """
    folder = figure_folder(figure)
    if scale == "paper":
        return [folder / f"{run}.yaml"]
    own = folder / "small" / f"{run}.yaml"
    return [folder / f"{run}.yaml", own if own.is_file() else folder / "small.yaml"]
