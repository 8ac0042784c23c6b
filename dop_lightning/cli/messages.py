"""Shorten error messages of jsonargparse."""

import itertools
import re
from collections.abc import Sequence

from dop_lightning.foundation.nearest import did_you_mean

_TYPES = ("Does not validate", "Subtypes:", "Errors:", "Expected ", "Given value", "Problem with given class_path")


def plain_message(text: str) -> str:
    r"""Extract the relevant error from jsonargparse's list of all types that a value does not match.

    >>> plain_message('Parser key "data":\n  Does not validate against …\n  - ratio must lie between 0 and 1')
    'data: ratio must lie between 0 and 1'
    >>> plain_message("Parser key \"tau\":\n  Errors:\n  - Expected a <class 'float'>\n  Given value: x")
    "tau: expected a float, got 'x'"
    """
    option = re.search(r"Option '(?P<name>[^']+)' is not accepted", text)
    key = re.match(r'(?:Validation failed: )?(?:Parser key|Key) "(?P<key>[^"]+)":', text)
    where = f"{key['key']}: " if key else ""
    inner = _innermost_message(text)
    if key and inner and not option:
        return f"{key['key']}.{plain_message(inner)}"
    if option:
        return f"{where}there is no setting {option['name']!r}"
    body = text[key.end() :] if key else text
    lines = [line.strip().removeprefix("- ").strip() for line in body.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_TYPES)]
    if telling:
        return where + telling[0] if key or len(telling) < len(lines) else text
    expected = [re.sub(r"<class '([\w.]+)'>", r"\1", line) for line in lines if line.startswith("Expected ")]
    expected = [re.sub(r"a typing\.Literal\[(.*?)\]", _format_choices, line) for line in expected]
    given = next((line.partition(":")[2].strip() for line in lines if line.startswith("Given value:")), None)
    if not expected:
        return text
    wanted = " or ".join(dict.fromkeys(line.removeprefix("Expected ").rstrip(".") for line in expected))
    return f"{where}expected {wanted}" + ("" if given is None else f", got {given!r}")


def add_suggestion(text: str, given: Sequence[str] = ()) -> str:
    """Add the closest match to a message that lists the allowed values.

    Args:
        text: a message of Lightning, argparse or this package.
        given: the words typed by the user, for messages that do not quote the wrong word.

    >>> add_suggestion("You selected an invalid name: `accelerator='cpuu'`. Available names are: auto, cuda, cpu.")
    "You selected an invalid name: `accelerator='cpuu'`. Available names are: auto, cuda, cpu; did you mean 'cpu'?"
    >>> add_suggestion("profiler can only be one of ['simple', 'advanced']", ["image.yaml", "simpel"])
    "profiler can only be one of ['simple', 'advanced']; did you mean 'simple'?"
    """
    listed = re.search(r"(?:one of|names are|names|choose from):? (?P<words>.*)", text, re.DOTALL)
    if listed is None or "did you mean" in text:
        return text
    allowed = re.findall(r"[\w+-]+", listed["words"].partition(", got ")[0])
    quoted = re.search(r"(?:got |=|choice: )'([^']+)'", text)
    for word in [quoted[1]] if quoted else given:
        if hint := did_you_mean(word, allowed):
            return text.rstrip(".") + hint
    return text


def _format_choices(literal: re.Match[str]) -> str:
    return f"one of {literal[1]}" if "," in literal[1] else literal[1]


def _innermost_message(text: str) -> str:
    """Return the message about the innermost of nested settings; empty if they are not nested."""
    lines = text.splitlines()
    start = max((i for i, line in enumerate(lines) if re.search(r'Parser key "[^"]+":$', line)), default=0)
    if start == 0:
        return ""
    depth = len(lines[start]) - len(lines[start].lstrip())
    block = itertools.takewhile(lambda line: len(line) - len(line.lstrip()) > depth, lines[start + 1 :])
    head = lines[start][lines[start].rindex("Parser key") :]
    return "\n".join([head, *block]).partition(". Got value: Namespace(")[0]
