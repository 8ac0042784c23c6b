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
        state: ``ok``; ``missing``, which is not an error for optional parts; ``problem``.
        text: one line: the result, or the problem and its fix.
        essential: whether the package cannot work without it.
    """

    section: str
    name: str
    state: State
    text: str
    essential: bool = False

    @property
    def is_fatal(self) -> bool:
        """Whether the package cannot work because of it."""
        return self.essential and self.state != "ok"


def attempt(section: str, name: str, look: Callable[[], tuple[State, str]], essential: bool = False) -> Finding:
    """Run one check; an exception becomes its finding.

    Args:
        section: section of the output.
        name: name of the check.
        look: returns state and text.
        essential: whether the package cannot work without it.
    """
    try:
        return Finding(section, name, *look(), essential)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit too: a package may do anything when it is imported
        return Finding(section, name, "problem", f"broken: {in_a_line(error)}", essential)


def in_a_line(error: BaseException, longest: int = 200) -> str:
    """Return the type and message of an error in one line."""
    said = " ".join(str(error).split())
    said = said if len(said) <= longest else f"{said[: longest - 1]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
