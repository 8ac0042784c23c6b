"""One line about what is wrong with a command of ``dop fit | validate | test | predict``."""

import re
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from omegaconf.errors import OmegaConfBaseException

from dop_lightning.cli.experiments.mistakes import MistakeError, Settings
from dop_lightning.cli.experiments.sources import Source, sources
from dop_lightning.cli.messages import add_suggestion, plain_message


@contextmanager
def explained(parser: ArgumentParser, arguments: Sequence[str]) -> Iterator[None]:
    """While arguments are parsed: say which setting is wrong, where it stands, and what may have been meant.

    Args:
        parser: of all settings.
        arguments: what was typed after the verb.

    Raises:
        ValueError: in place of what the parser raised.
    """
    try:
        yield
    except (ArgumentError, OmegaConfBaseException, ValueError) as error:
        try:
            Settings(parser).check(list(sources(arguments)))
        except MistakeError as mistake:
            raise ValueError(str(mistake)) from error
        raise ValueError(plain_message(str(error)) + _stray_config(str(error))) from error


def _stray_config(text: str) -> str:
    """The option that was left out before a config file."""
    stray = re.match(r"[Uu]nrecognized arguments: (\S+\.ya?ml)\b", text)
    return f"; did you mean --config {stray[1]}?" if stray and Path(stray[1]).is_file() else ""


def describe(error: Exception, arguments: Sequence[str] | dict[str, Any]) -> str:
    """Return the text of an error from one line on, with the word that may have been meant.

    Args:
        error: what a part, Lightning or jsonargparse raised.
        arguments: what was typed after the verb, or a config that a program made.
    """
    text = plain_message(str(error))
    return add_suggestion(text, _words(list(sources(arguments)))) if isinstance(arguments, list) else text


def _words(found: Sequence[Source]) -> list[str]:
    return [word for source in found for word in _texts(source.tree)]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
