"""Runs the blocks of documents in the process of a test: commands at a tiny size, code as it stands."""

import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from dop_lightning.cli.main import main
from scripts.run_document import ROOT, Block, blocks, commands, prepare

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

FEWER = 20
"""By this much the iterations that a page names are divided."""


def words_of(command: str) -> list[str]:
    """The words of a command without variables of the environment before it."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words


def small(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``dop`` with what makes the command short."""
    given = list(arguments)
    verb, text = given[0], " ".join(given)
    if verb == "recover":
        return [*given, "--iterations", "2", "--width", "4"]
    if verb == "separate":
        return [*given, "--iterations", "50"]
    if verb not in ("fit", "sweep") or "--print_config" in given:
        return given
    if "--trainer.max_steps" in given:
        place = given.index("--trainer.max_steps") + 1
        given[place] = str(max(2, int(given[place]) // FEWER))
    else:
        given += ["--trainer.max_steps", "2"]
    if re.search(r"configs/(image|superresolution|blur)\.yaml", text):
        given += ["--model.signal.init_args.width", "4", "--model.signal.init_args.scales", "2"]
        if "--data.resize" not in text and "--data.images" not in text:
            given += ["--data.resize", "32"]
    if re.search(r"configs/(matrix|completion)\.yaml", text) and "--data.files" not in text:
        given += ["--data.n", "12", "--data.rank", "1", "--data.seeds", "2"]
    return [*given, "--cluster", "debug"] if verb == "sweep" else given


def status(arguments: Sequence[str]) -> int:
    """The exit status of ``dop``."""
    try:
        return main(list(arguments))
    except SystemExit as left:
        return 0 if left.code is None else int(left.code)


class Reader:
    """Does what a page says, from top to bottom, in the present folder.

    Args:
        page: its name in docs/.
        smaller: changes the arguments of ``dop``.
        skip: commands that begin so are not run here.
    """

    def __init__(
        self, page: str, smaller: Callable[[Sequence[str]], list[str]] = small, skip: Sequence[str] = ()
    ) -> None:
        self.path = DOCS / page
        self.smaller, self.skip, self.runs = smaller, tuple(skip), 0
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def read(self) -> None:
        """Run all blocks."""
        for block in blocks(self.path):
            if block.kind == "python":
                self.run_python(block)
            elif block.kind == "sh":
                self.run_shell(block)

    def run_python(self, block: Block) -> None:
        """Run code where that of the page before it has left off."""
        exec(compile("\n" * block.line + block.code, str(self.path), "exec"), self.namespace)

    def run_shell(self, block: Block) -> None:
        """Run commands: ``dop`` in this process, others by the shell."""
        if "<<" in block.code:
            self.run_other(block.code)
            return
        for command in commands(block):
            words = words_of(command)
            if command.startswith(self.skip):
                continue
            if words[0] == "dop":
                assert status(self.in_a_folder(self.smaller(words[1:]))) == 0, f"{self.path}:{block.line}: {command}"
            else:
                self.run_other(command)

    def in_a_folder(self, arguments: list[str]) -> list[str]:
        """Where a run has no folder it gets one by the time, which several starts within a second would share."""
        if arguments[0] != "fit" or "--trainer.default_root_dir" in arguments or "/config.yaml" in str(arguments):
            return arguments
        self.runs += 1
        return [*arguments, "--trainer.default_root_dir", f"runs/of-this-page/{self.runs}"]

    @staticmethod
    def run_other(code: str) -> None:
        """By the shell."""
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True, timeout=60)


__all__ = ["DOCS", "PAGES", "ROOT", "Block", "Reader", "blocks", "commands", "prepare", "small", "status", "words_of"]
