"""What the verbs with options of their own share; nothing heavy is imported here."""

import argparse
from typing import NoReturn

DEVICES = {"auto": "auto", "cpu": "cpu", "gpu": "gpu", "cuda": "gpu", "mps": "mps"}
"""Names of devices, and Lightning's names for them."""


class OptionParser(argparse.ArgumentParser):
    """Its errors are the caller's one line, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving.

        Raises:
            ValueError: always.
        """
        raise ValueError(message)
