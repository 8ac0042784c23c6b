"""Limit how long idle PyTorch threads spin before they sleep. Does not import PyTorch."""

import os
from collections.abc import MutableMapping

SPIN_COUNT = "10000"
"""Number of spins. The default is so large that on a busy machine, waiting threads take cores from working ones."""

CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Environment variables that set it for GNU OpenMP, which PyTorch uses on Linux."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Limit spinning to :data:`SPIN_COUNT`, unless the user has set it. Only effective before PyTorch is imported.

    Args:
        environment: environment of this process, or of one to be started.
    """
    if not any(name in environment for name in CHOICES):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
