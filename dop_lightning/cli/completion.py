"""``dop completion``: print the script that completes verbs, options and files in a shell."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence

from dop_lightning.cli.main import EXPERIMENT, VERBS
from dop_lightning.cli.options import OptionParser

SHELLS = {
    "bash": "dop completion bash > ~/.local/share/bash-completion/completions/dop",
    "zsh": "dop completion zsh > ~/.zfunc/_dop, with fpath=(~/.zfunc $fpath) before compinit in ~/.zshrc",
    "fish": "dop completion fish > ~/.config/fish/completions/dop.fish",
}
"""How to install the script of each shell."""

FILES = frozenset({"DATA", "FILE", "IMAGE", "INPUT", "MATRIX", "PATH", "RUN", "CONFIG"})
"""Placeholders of files and folders in help texts."""

FOLDERS = frozenset({"DIR", "FOLDER"})
"""Placeholders of folders in help texts."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop completion``."""
    result = OptionParser(
        prog="dop completion",
        description="Print a script that completes the verbs, options and files of dop. Install it by one of\n\n"
        + "\n".join(f"  {command}" for command in SHELLS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("shell", choices=list(SHELLS), help="your shell")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Print the script of a shell.

    Raises:
        ImportError: shtab is not installed.
    """
    options = parser().parse_args(arguments)
    try:
        import shtab
    except ImportError as error:
        raise ImportError('shtab is not installed: pip install "dop_lightning[completion]"') from error
    print(shtab.complete(command(), shell=options.shell))
    return 0


def command() -> argparse.ArgumentParser:
    """Return one parser with all verbs, for completion only."""
    from shtab import DIRECTORY, FILE

    root = argparse.ArgumentParser(prog="dop")
    root.add_argument("-V", "--version", action="version", help="print the version")
    verbs = root.add_subparsers(dest="verb")
    for verb, (module, summary) in VERBS.items():
        if module == EXPERIMENT:
            own = verbs.add_parser(verb, help=summary)
            for flags, text in experiment_options(verb):
                own.add_argument(*flags, metavar="FILE" if "--config" in flags else "VALUE", help=text)
        else:
            given = importlib.import_module(module).parser()
            own = verbs.add_parser(verb, help=summary, parents=[given], add_help=False)
        for action in own._actions:
            if action.choices is not None:
                action.choices = list(action.choices)  # shtab takes a dict for verbs
            names = {action.metavar} if isinstance(action.metavar, str) else set(action.metavar or ())
            if names & FOLDERS:
                action.complete = DIRECTORY  # type: ignore[attr-defined]
            elif names & FILES and not action.choices:
                action.complete = FILE  # type: ignore[attr-defined]
    return root


def experiment_options(verb: str) -> Iterator[tuple[list[str], str]]:
    """Yield the options of an experiment: flags, and the first sentence of their help."""
    from dop_lightning.cli.experiments.lightning_cli import parser_of

    for action in parser_of(verb)._actions:
        flags = [flag for flag in action.option_strings if flag not in ("-h", "--help") and not flag.endswith("+")]
        if flags and action.help != argparse.SUPPRESS:
            text = " ".join((action.help or "").split()).split(". ")[0]
            yield flags, text.replace("%", "%%")[:80]
