"""What the verbs with options of their own share; nothing heavy is imported here."""

import argparse
import re
from collections.abc import Mapping
from typing import NoReturn

DEVICES = {"auto": "auto", "cpu": "cpu", "gpu": "gpu", "cuda": "gpu", "mps": "mps"}
"""Names of devices, and Lightning's names for them."""

METHODS = ("auto", "dop", "projections", "convex")
"""How ``dop separate`` takes a matrix apart."""

MAPPED_SHARE = 4
"""Matrices above one MAPPED_SHARE-th of the memory are read in pieces."""


def refuse(options: argparse.Namespace, defaults: Mapping[str, object], kind: str) -> None:
    """Refuse options that have no meaning.

    Args:
        options: all of them.
        defaults: those without meaning, by name, and their defaults.
        kind: for what.

    Raises:
        ValueError: one is not at its default.
    """
    for name, default in defaults.items():
        if getattr(options, name) != default:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} does not apply to {kind}, got {getattr(options, name)!r}")


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
