"""Versions of the requirements of the package and of its extras, from its metadata."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from dop_lightning.cli.doctor.finding import Finding, State, attempt, in_a_line

if TYPE_CHECKING:  # imported lazily, because it may be broken
    from packaging.requirements import Requirement

NAME = "dop_lightning"

PURPOSES = {
    "astro": "reads and writes FITS files",
    "matlab": "reads and writes .mat files",
    "parquet": "reads .parquet tables",
    "hdf5": "reads and writes HDF5 matrices",
    "zarr": "reads and writes Zarr matrices",
    "app": "dop app, in the browser",
    "arrays": "xarray, dask and zarr arrays in recover_image",
    "figures": "drawings of dop figure",
    "theory": "the gradient flow of Theorem 1",
    "completion": "shell completion",
    "cluster": "SLURM jobs of dop sweep",
    "ray": "dop fit and dop sweep on a Ray cluster",
    "estimator": "RobustPCA, a scikit-learn estimator",
    "video": "videos in dop separate",
    "tune": "hyperparameter search with Optuna",
    "rivals": "classical filters for comparison",
    "triton": "fused kernels on a GPU",
    "physics": "deepinv: operators and a reconstructor",
    "napari": "napari plugin",
    "notebook": "live pictures of recover_image in notebooks",
    "docs": "documentation site",
    "dev": "tests and linters",
}
"""Purpose of each extra."""

MODULES = {
    "opencv-contrib-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}
"""Module names of packages that differ from the name of the package."""

NOT_IMPORTED = ("dev", "docs")
"""Extras whose packages are tools, which are not imported."""


def requirements() -> dict[str, list[Requirement]]:
    """Return the requirements on this machine by extra; the empty name has those that are always required.

    Raises:
        PackageNotFoundError: the package is on the path, but not installed.
        ImportError: the package ``packaging``, which parses requirements, is missing.
    """
    from packaging.requirements import Requirement

    extras = metadata.metadata(NAME).get_all("Provides-Extra") or []
    listed = [Requirement(line) for line in metadata.requires(NAME) or []]
    always = [needed for needed in listed if _applies(needed, "")]
    return {"": always} | {
        extra: [needed for needed in listed if _applies(needed, extra) and needed not in always] for extra in extras
    }


def _applies(needed: Requirement, extra: str) -> bool:
    return needed.marker is None or needed.marker.evaluate({"extra": extra})


def check_packages() -> Iterator[Finding]:
    """Check Python, the package and its requirements, each by importing it."""
    yield Finding("packages", "Python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    try:
        always = requirements()[""]
        yield Finding("packages", NAME, "ok", f"{metadata.version(NAME)} in {_package_folder()}")
    except metadata.PackageNotFoundError:
        yield Finding(
            "packages", NAME, "problem", f"in {_package_folder()}, but not installed: its requirements are unknown"
        )
        return
    except ImportError as error:
        text = f"broken: {in_a_line(error)}; the other packages cannot be checked without it"
        yield Finding("packages", "packaging", "problem", text, essential=True)
        return
    for needed in always:
        yield attempt("packages", needed.name, partial(package, needed), essential=True)


def _package_folder() -> str:
    return str(importlib.import_module(NAME).__path__[0])


def package(needed: Requirement, imported: bool = True) -> tuple[State, str]:
    """Return the state of a package and its version.

    Args:
        needed: name and supported versions of the package.
        imported: whether to import it as well.
    """
    extras = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
    install = f'pip install "{needed.name}{extras}{needed.specifier}"'
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return "missing", f"not installed: {install}"
    if not needed.specifier.contains(version, prereleases=True):
        return "problem", f"{version} is installed, but {needed.specifier} is required: {install}"
    if imported:
        importlib.import_module(MODULES.get(needed.name, needed.name.replace("-", "_")))
    return "ok", version


def check_extras() -> Iterator[Finding]:
    """Check the extras: one line each, with its purpose and installed packages."""
    try:
        extras = {extra: packages for extra, packages in requirements().items() if extra}
    except (metadata.PackageNotFoundError, ImportError):  # check_packages reports both
        return
    for extra, packages in extras.items():
        yield attempt("extras", extra, partial(_extra, extra, packages))


def _extra(extra: str, packages: Sequence[Requirement]) -> tuple[State, str]:
    found = [(needed.name, *package(needed, imported=extra not in NOT_IMPORTED)) for needed in packages]
    purpose = f"{PURPOSES[extra]}: " if extra in PURPOSES else ""
    if wrong := [f"{name}: {text}" for name, state, text in found if state == "problem"]:
        return "problem", purpose + "; ".join(wrong)
    if missing := [name for name, state, _ in found if state == "missing"]:
        lacks = "" if len(missing) == len(found) else f" ({', '.join(missing)})"
        return "missing", f'{purpose}pip install "{NAME}[{extra}]"{lacks}'
    versions = ", ".join(f"{name} {text}" for name, _, text in found) if extra not in NOT_IMPORTED else "all installed"
    return "ok", purpose + versions
