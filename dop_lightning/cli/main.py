"""The command ``dop``. Verbs are dispatched before heavy imports, so that ``dop --help`` is fast."""

import importlib
import io
import os
import sys
from collections.abc import Sequence

from dop_lightning.foundation import interrupts, moved
from dop_lightning.foundation.launched import is_child
from dop_lightning.foundation.tracebacks import wants_traceback
from dop_lightning.foundation.waiting import limit_spinning

EXPERIMENT = "dop_lightning.cli.experiments.help"

GROUPS = {
    "Your files": {
        "recover": ("dop_lightning.cli.recover", "restore photographs with dead or random pixels"),
        "separate": (
            "dop_lightning.cli.separate",
            "split a matrix into low-rank and sparse parts, or a video into background and foreground",
        ),
        "app": ("dop_lightning.cli.app.command", "open a page in the browser that does both, only on this machine"),
    },
    "Experiments (YAML files)": {
        "fit": (EXPERIMENT, "recover the problems of a config; repeat the command to resume"),
        "validate": (EXPERIMENT, "score the checkpoint of a run"),
        "test": (EXPERIMENT, "the same as validate"),
        "predict": (EXPERIMENT, "write the results of a checkpoint"),
        "sweep": ("dop_lightning.cli.sweep", "run a grid of settings, on this machine or with SLURM"),
        "status": ("dop_lightning.cli.status", "show the progress of runs and sweeps"),
        "table": ("dop_lightning.cli.table", "print one table of many runs: text, CSV, Markdown or LaTeX"),
        "verify": ("dop_lightning.cli.verify", "check the files of runs for damage"),
        "report": ("dop_lightning.cli.report", "write one HTML page of a run: pictures, curves, scores, settings"),
        "figure": ("dop_lightning.cli.figure", "compute and draw a figure of the paper"),
    },
    "Your shell": {
        "completion": ("dop_lightning.cli.completion", "print a script that completes verbs, options and files"),
    },
    "Troubleshooting": {
        "doctor": ("dop_lightning.cli.doctor.command", "check the installation: versions, devices, extras"),
    },
}
"""Verbs in the order of ``dop --help``: module and summary of each."""

VERBS = {verb: entry for group in GROUPS.values() for verb, entry in group.items()}

RESUMED = ("recover", "separate", "fit", "sweep", "figure")
"""Verbs that resume an interrupted run."""

EXAMPLES = (
    ("dop recover photo.png --out restored", "restore a photograph"),
    ("dop separate video.mp4 --out scene", "split a video or a matrix"),
    ("dop report restored", "create an HTML page of the result"),
    ("dop fit --config configs/image.yaml", "run an experiment"),
    ("dop table runs", "print the scores of all runs in a folder"),
)

EXIT_USER_ERROR = 2
EXIT_FAULT = 1
"""Exit status of an error in user code, whose traceback is printed."""


def usage() -> str:
    """Return the text of ``dop --help``."""
    lines = [
        "usage: dop VERB [options]",
        "",
        "Restore images and matrices from a single, grossly corrupted observation, without training data, by double",
        "over-parameterization.",
        "",
    ]
    wide = max(len(command) for command, _ in EXAMPLES)
    lines += [f"  {command:<{wide}}   {what}" for command, what in EXAMPLES]
    for title, verbs in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {verb:<12}{text}" for verb, (_, text) in verbs.items())]
    return "\n".join([*lines, "", "dop VERB --help describes a verb, dop --version prints the version."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status.

    The status is 0 for success, 1 for a failure, 2 for a user error, 130 after Ctrl-C, and 143 after SIGTERM.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        moved.show_warnings()
        limit_spinning()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(errors="replace")  # question marks instead of errors for unsupported characters
    if argv[:1] == ["help"] and len(argv) > 1:
        argv = [argv[1], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"dop_lightning {version('dop_lightning')}")
        except PackageNotFoundError:
            print("dop_lightning, unknown version: the package is on the path, but not installed")
        return 0
    verb = argv[0]
    if verb not in VERBS:
        from dop_lightning.cli.suggestions import suggestion

        meant = suggestion(verb, VERBS)
        hint = f"; did you mean {meant}?" if meant else ""
        print(f"dop: error: no verb {verb!r}{hint} (dop --help lists them)", file=sys.stderr)
        return EXIT_USER_ERROR
    if odd := _encoding_error(argv):
        print(f"dop {verb}: error: {odd}", file=sys.stderr)
        return EXIT_USER_ERROR
    try:
        traceback = wants_traceback()
    except ValueError as error:
        print(f"dop {verb}: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    try:
        with interrupts.interruptible(is_process=arguments is None):
            return int(importlib.import_module(VERBS[verb][0]).run(verb, argv[1:]))
    except KeyboardInterrupt:
        if not is_child():  # otherwise, the parent process prints it
            resumes = "; the same command resumes" if verb in RESUMED else ""
            print(f"\ndop {verb}: stopped{resumes}", file=sys.stderr)
        return interrupts.status()
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        from dop_lightning.cli.user_code import place_of

        if traceback:
            raise
        text, place = _one_line(error), "" if isinstance(error, OSError) else place_of(error)
        print(f"dop {verb}: error: {text}{f' ({place})' if place not in text else ''}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Exception as error:
        from dop_lightning.cli.user_code import describe

        text = "" if traceback else describe(error)
        if not text:
            raise
        print(text, file=sys.stderr)
        return EXIT_FAULT


def _encoding_error(argv: Sequence[str]) -> str:
    """Return the error for arguments that are not UTF-8, as required in configs, tables and folders; empty if valid."""
    for place, argument in enumerate(argv):
        if any("\ud800" <= character <= "\udfff" for character in argument):  # Python's escapes of other bytes
            from dop_lightning.foundation.names import printable

            flags = [word for word in argv[1:place] if word.startswith("--")]
            follows = f" after {flags[-1]}" if flags else ""
            got = printable(argument)
            return f"argument {place}{follows} must be text in UTF-8, got '{got}'; choose another name"
    return ""


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return text


moved.make_callable(__name__, main)  # ``from dop_lightning.cli import main`` imported the function in version 0.1

if __name__ == "__main__":
    sys.exit(main())
