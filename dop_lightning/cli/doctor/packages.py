"""Versions: those that the package needs, and those of its extras, as its own metadata lists them."""

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata

from dop_lightning.cli.doctor.finding import Finding, State, attempt

NAME = "dop_lightning"

PURPOSES = {
    "matlab": "reads and writes .mat files",
    "figures": "dop figure draws",
    "theory": "the flow of Theorem 1, and its limit",
    "cluster": "dop sweep starts jobs, here or under SLURM",
    "estimator": "RobustPCA, an estimator of scikit-learn",
    "video": "dop separate reads and writes videos",
    "physics": "deepinv's physics as operators",
    "docs": "the site of the documents",
    "dev": "tests and checks of the code",
}
"""What each extra is for."""

MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage", "scikit-learn": "sklearn"}
"""Packages whose module has another name."""

NOT_IMPORTED = ("dev", "docs")
"""Extras whose packages are tools: that they are there is enough."""

_REQUIREMENT = re.compile(r"\s*(?P<name>[\w.-]+)\s*(\[[^\]]*\])?\s*(?P<range>[^;]*?)\s*(;(?P<marker>.*))?$")


def requirements() -> dict[str, list[tuple[str, str]]]:
    """Package and range, by extra; those that are always needed under the empty name.

    Raises:
        PackageNotFoundError: the package was not installed, only found on the path.
    """
    found: dict[str, list[tuple[str, str]]] = {"": []}
    found |= {extra: [] for extra in metadata.metadata(NAME).get_all("Provides-Extra") or []}
    for line in metadata.requires(NAME) or []:
        parts = _REQUIREMENT.match(line)
        if parts is None:
            continue
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", parts["marker"] or "")
        found.setdefault(extra[1] if extra else "", []).append((parts["name"], parts["range"].strip("() ")))
    return found


def check_packages() -> Iterator[Finding]:
    """Python, the package itself, and what it cannot do without: each is imported."""
    yield Finding("packages", "Python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    try:
        needed = requirements()[""]
        yield Finding("packages", NAME, "ok", f"{metadata.version(NAME)} in {_place()}")
    except metadata.PackageNotFoundError:
        yield Finding("packages", NAME, "problem", f"in {_place()}, but not installed: what it needs is not known")
        return
    for name, versions in needed:
        yield attempt("packages", name, lambda name=name, versions=versions: package(name, versions), essential=True)  # type: ignore[misc]


def _place() -> str:
    return str(importlib.import_module(NAME).__path__[0])


def package(name: str, versions: str = "", imported: bool = True) -> tuple[State, str]:
    """The state of a package and its version.

    Args:
        name: as pip knows it.
        versions: that will do, such as ``>=4.40,<5``; empty for all.
        imported: whether to import it as well.
    """
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing", f'not installed: pip install "{name}{versions}"'
    if not is_within(version, versions):
        return "problem", f'{version} is installed, {versions} is needed: pip install "{name}{versions}"'
    if imported:
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    return "ok", version


def is_within(version: str, versions: str) -> bool:
    """Whether a version is in a range; without the means to tell, it is."""
    try:
        from packaging.specifiers import SpecifierSet
        from packaging.version import Version
    except ImportError:
        return True
    return SpecifierSet(versions).contains(Version(version), prereleases=True)


def check_extras() -> Iterator[Finding]:
    """A line an extra: what it is for, and what is installed of it."""
    try:
        extras = {extra: packages for extra, packages in requirements().items() if extra}
    except metadata.PackageNotFoundError:
        return
    for extra, packages in extras.items():
        yield attempt("extras", extra, lambda extra=extra, packages=packages: _extra(extra, packages))  # type: ignore[misc]


def _extra(extra: str, packages: Sequence[tuple[str, str]]) -> tuple[State, str]:
    found = [(name, *package(name, versions, imported=extra not in NOT_IMPORTED)) for name, versions in packages]
    purpose = f"{PURPOSES[extra]}: " if extra in PURPOSES else ""
    if wrong := [f"{name}: {text}" for name, state, text in found if state == "problem"]:
        return "problem", purpose + "; ".join(wrong)
    if missing := [name for name, state, _ in found if state == "missing"]:
        lacks = "" if len(missing) == len(found) else f" ({', '.join(missing)})"
        return "missing", f'{purpose}pip install "{NAME}[{extra}]"{lacks}'
    versions = ", ".join(f"{name} {text}" for name, _, text in found) if extra not in NOT_IMPORTED else "all installed"
    return "ok", purpose + versions
