"""What the verbs with options of their own share; nothing heavy is imported here."""

import argparse
import re
from typing import NoReturn

DEVICES = {"auto": "auto", "cpu": "cpu", "gpu": "gpu", "cuda": "gpu", "mps": "mps"}
"""Names of devices, and Lightning's names for them."""

METHODS = ("auto", "dop", "projections", "convex")
"""How ``dop separate`` takes a matrix apart."""


class OptionParser(argparse.ArgumentParser):
    """Its errors are the caller's one line, not a page of usage, with the word that may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving.

        Raises:
            ValueError: always.
        """
        from dop_lightning.cli.messages import add_suggestion
        from dop_lightning.foundation.nearest import did_you_mean

        if unknown := re.match(r"unrecognized arguments: .*?(--?[\w-]+)", message):
            message += did_you_mean(unknown[1], [o for o in self._option_string_actions if o[:2] == "--"], quote=False)
        raise ValueError(add_suggestion(message))
