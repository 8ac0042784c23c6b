"""How long threads of PyTorch that have nothing to do wait in a loop before they sleep. Imports no PyTorch."""

import os
from collections.abc import MutableMapping

SPINS = "10000"
"""Turns of the loop: by default so many that on a busy machine threads that wait keep others from working."""

CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Variables by which users choose it for GNU's OpenMP, that of PyTorch on Linux."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Limit the turns to :data:`SPINS`, unless the user has chosen. Has an effect only before PyTorch is imported.

    Args:
        environment: of this process, or of one that is to be started.
    """
    if not any(name in environment for name in CHOICES):
        environment["GOMP_SPINCOUNT"] = SPINS
