"""One line of ``dop doctor``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "problem"]


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        section: section of the output.
        name: name of the check.
        state: ``ok``, ``problem``, or ``missing``, which is not an error for optional parts.
        text: one line with the result, or the problem and its fix.
        essential: whether the package requires it.
    """

    section: str
    name: str
    state: State
    text: str
    essential: bool = False

    @property
    def is_fatal(self) -> bool:
        """Whether an essential part is missing or broken."""
        return self.essential and self.state != "ok"


def attempt(section: str, name: str, look: Callable[[], tuple[State, str]], essential: bool = False) -> Finding:
    """Run one check; an exception becomes its finding.

    Args:
        section: section of the output.
        name: name of the check.
        look: function that returns state and text.
        essential: whether the package requires it.
    """
    try:
        return Finding(section, name, *look(), essential)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # including SystemExit: importing a package may raise anything
        return Finding(section, name, "problem", f"broken: {in_a_line(error)}", essential)


def in_a_line(error: BaseException, longest: int = 200) -> str:
    """Return the type and message of an error in one line."""
    message = " ".join(str(error).split())
    message = message if len(message) <= longest else f"{message[: longest - 1]}…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
