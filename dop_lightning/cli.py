"""The command ``dop``: verbs are found before anything heavy is imported, so that ``dop --help`` answers at once."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

VERBS = {
    "fit": ("dop_lightning.commands.lightning", "recover the problems of a config: dop fit --config C.yaml"),
    "validate": ("dop_lightning.commands.lightning", "score the checkpoint of a run"),
    "test": ("dop_lightning.commands.lightning", "the same as validate"),
    "predict": ("dop_lightning.commands.lightning", "write the files that a checkpoint has recovered"),
    "recover": ("dop_lightning.commands.recover", "restore images: dop recover PHOTO.png --out DIR"),
    "sweep": ("dop_lightning.commands.sweep", "a grid of runs: dop sweep --config C.yaml --axis KEY=V1,V2 --out DIR"),
    "table": ("dop_lightning.commands.table", "one table out of many runs: dop table RUN…"),
    "figure": ("dop_lightning.commands.figure", "reproduce a figure of the paper: dop figure 2bc --out DIR"),
}

EXIT_USER_ERROR = 2


def usage() -> str:
    """The text of ``dop --help``."""
    lines = [
        "usage: dop VERB [options]",
        "",
        "Robust recovery without training data, by double over-parameterization.",
        "",
    ]
    lines += [f"  {verb:<10}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join([*lines, "", "dop VERB --help explains a verb; dop --version tells the version."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, 2 for a user's mistake, 130 or 143 after Ctrl-C or SIGTERM."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"dop_lightning {version('dop_lightning')}")
        return 0
    verb = argv[0]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"dop: error: no verb {verb!r}{hint} (dop --help lists them)", file=sys.stderr)
        return EXIT_USER_ERROR
    command = importlib.import_module(VERBS[verb][0])
    try:
        return int(command.run(verb, argv[1:]))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("DOP_TRACEBACK"):
            raise
        print(f"dop {verb}: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_USER_ERROR


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return text


if __name__ == "__main__":
    sys.exit(main())
