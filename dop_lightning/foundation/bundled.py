"""Folders bundled with the package: sample photographs and configs."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def bundled_folder(installed: str, checkout: str) -> Path:
    """Return a bundled folder: inside the installed package, or at the top of a checkout.

    Args:
        installed: name of the folder inside the installed package.
        checkout: name of the folder next to the package in a checkout.
    """
    inside = PACKAGE / installed
    return inside if inside.is_dir() else PACKAGE.parent / checkout
