"""The folders that come with the package: sample photographs and configs."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def bundled_folder(installed: str, checkout: str) -> Path:
    """Return a bundled folder: inside an installed package, or at the top of a checkout.

    Args:
        installed: its name inside the installed package.
        checkout: its name beside the package in a checkout.
    """
    inside = PACKAGE / installed
    return inside if inside.is_dir() else PACKAGE.parent / checkout
