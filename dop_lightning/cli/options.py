"""Options shared by several verbs. No heavy package is imported here."""

import argparse
import re
from collections.abc import Mapping
from typing import NoReturn

DEVICES = {"auto": "auto", "cpu": "cpu", "gpu": "gpu", "cuda": "gpu", "mps": "mps"}
"""Accepted device names, and the corresponding names in Lightning."""

METHODS = ("auto", "dop", "projections", "convex")
"""Methods of ``dop separate`` for matrices."""

MAPPED_FRACTION = 4
"""Matrices larger than the memory divided by this number are read in pieces."""


def refuse(options: argparse.Namespace, defaults: Mapping[str, object], kind: str) -> None:
    """Check that options that do not apply are not set.

    Args:
        options: all options.
        defaults: defaults of the options that do not apply, by name.
        kind: name of the data that they do not apply to.

    Raises:
        ValueError: an option differs from its default.
    """
    for name, default in defaults.items():
        if getattr(options, name) != default:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} does not apply to {kind}, got {getattr(options, name)!r}")


class OptionParser(argparse.ArgumentParser):
    """Parser that raises errors as one line with the closest match, instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting.

        Raises:
            ValueError: always.
        """
        from dop_lightning.cli.messages import add_suggestion
        from dop_lightning.foundation.nearest import did_you_mean

        if unknown := re.match(r"unrecognized arguments: .*?(--?[\w-]+)", message):
            message += did_you_mean(unknown[1], [o for o in self._option_string_actions if o[:2] == "--"], quote=False)
        raise ValueError(add_suggestion(message))
