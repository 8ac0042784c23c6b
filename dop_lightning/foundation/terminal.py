"""Standard streams, which may be missing: programs without a console, such as pythonw on Windows, have none."""


def is_terminal(stream: object) -> bool:
    """Return whether a stream is a terminal. Missing and closed streams are not, nor are objects without ``isatty``.

    >>> is_terminal(None)
    False
    """
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and not getattr(stream, "closed", False) and bool(isatty())
