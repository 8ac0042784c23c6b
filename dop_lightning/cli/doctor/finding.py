"""One line of a check-up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        section: what it belongs to.
        name: of the thing.
        state: ``ok``; ``missing``, which is no fault where it is optional; ``problem``.
        text: a line: what there is, or what is wrong and how to mend it.
        essential: whether nothing works without it.
    """

    section: str
    name: str
    state: State
    text: str
    essential: bool = False

    @property
    def is_fatal(self) -> bool:
        """Whether it keeps everything from working."""
        return self.essential and self.state != "ok"


def attempt(section: str, name: str, look: Callable[[], tuple[State, str]], essential: bool = False) -> Finding:
    """Look at one thing; whatever goes wrong is what was found.

    Args:
        section: what it belongs to.
        name: of the thing.
        look: gives state and text.
        essential: whether nothing works without it.
    """
    try:
        return Finding(section, name, *look(), essential)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit too: a package may do anything when it is imported
        return Finding(section, name, "problem", f"broken: {in_a_line(error)}", essential)


def in_a_line(error: BaseException, longest: int = 200) -> str:
    """The kind of an error, and what it says."""
    said = " ".join(str(error).split())
    said = said if len(said) <= longest else f"{said[: longest - 1]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
