"""Explain errors in the arguments of ``dop fit | validate | test | predict`` in one line."""

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
    """Replace errors of the parser by one line with the wrong setting, its location, and a suggestion.

    Args:
        parser: parser of all settings.
        arguments: arguments after the verb.

    Raises:
        ValueError: the parser raised an error.
    """
    try:
        yield
    except (ArgumentError, OmegaConfBaseException, ValueError) as error:
        try:
            Settings(parser).check(list(sources(arguments)))
        except MistakeError as mistake:
            raise ValueError(str(mistake)) from error
        raise ValueError(plain_message(str(error)) + _suggest_config_option(str(error))) from error


def _suggest_config_option(text: str) -> str:
    """Return a suggestion if ``--config`` is missing before a config file."""
    stray = re.match(r"[Uu]nrecognized arguments: (\S+\.ya?ml)\b", text)
    return f"; did you mean --config {stray[1]}?" if stray and Path(stray[1]).is_file() else ""


def describe(error: Exception, arguments: Sequence[str] | dict[str, Any]) -> str:
    """Return the shortened message of an error, with a suggestion.

    Args:
        error: an error of a part, Lightning or jsonargparse.
        arguments: arguments after the verb, or a generated config.
    """
    text = plain_message(str(error))
    return add_suggestion(text, _all_words(list(sources(arguments)))) if isinstance(arguments, list) else text


def _all_words(found: Sequence[Source]) -> list[str]:
    return [word for source in found for word in _strings(source.tree)]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
