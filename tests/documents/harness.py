"""Finds the blocks of documents, runs them and parses their commands: for tests, and for scripts/run_document.py.

Blocks of the languages ``sh`` and ``python`` are run. ``yaml`` is for reading, ``console`` shows what is not run, and
blocks without a language are what was printed.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from dop_lightning.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

LANGUAGES = {"sh", "python", "yaml", "console", ""}
"""The languages of blocks; directives of the site, in braces, are no blocks."""

RUNNABLE = ("sh", "python")

FENCE = re.compile(r"^(?P<marks>`{3,})(?P<kind>[^\n`]*)\n(?P<code>.*?)^(?P=marks)`*\s*$", re.MULTILINE | re.DOTALL)

FEWER = 20
"""By this the iterations that a page names are divided."""


# -------------------------------------------------------------------------------------------------------------- finding


class Block(NamedTuple):
    """A block of a document."""

    kind: str
    code: str
    line: int

    @property
    def first_line(self) -> str:
        return next((line for line in self.code.splitlines() if line.strip()), "")

    @property
    def commands(self) -> list[str]:
        """The commands of a block of the shell: continued lines are joined, comments are left out."""
        joined = re.sub(r"\\\n\s*", "", self.code)
        lines = (re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(page: Path, *kinds: str) -> list[Block]:
    """Return the blocks of a page in their order, of some languages or of all."""
    text = page.read_text(encoding="utf-8")
    found = [Block(m["kind"].strip(), m["code"], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]
    return [block for block in found if not block.kind.startswith("{") and (not kinds or block.kind in kinds)]


def commands(page: Path) -> list[str]:
    """Return the commands of all blocks of the shell."""
    return [command for block in blocks(page, "sh") for command in block.commands]


def words_of(command: str) -> list[str]:
    """Return the words of a command without variables of the environment before it."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words


# -------------------------------------------------------------------------------------------------------------- running


class BlockError(RuntimeError):
    """A block of a document failed."""


def prepare(folder: Path) -> None:
    """Link the repository's folders into the one where a newcomer works."""
    for name in ("configs", "data", "scripts"):
        (folder / name).symlink_to(ROOT / name)


def status(arguments: Sequence[str]) -> int:
    """Return the exit status of ``dop``."""
    try:
        return main(list(arguments))
    except SystemExit as left:
        return 0 if left.code is None else int(left.code)


def run_python(block: Block, page: Path, namespace: dict[str, Any] | None = None) -> str:
    """Run code, in a namespace that later blocks may share, and return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile("\n" * block.line + block.code, str(page), "exec"), {} if namespace is None else namespace)
    return out.getvalue()


def run_shell(code: str, timeout: float | None = None) -> str:
    """Run code by bash, with this environment's programs, and return what it prints.

    Raises:
        BlockError: a command failed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise BlockError(f"{code.strip()} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def small(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of ``dop`` with what makes the command short."""
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


class Reader:
    """Does what a page says, from top to bottom, in the present folder.

    Args:
        page: the file.
        smaller: changes the arguments of ``dop``, which then runs in this process, command by command; None runs whole
            blocks of the shell as they stand.
        skip: commands that begin so are not run.
    """

    def __init__(
        self,
        page: Path,
        smaller: Callable[[Sequence[str]], list[str]] | None = small,
        skip: Sequence[str] = (),
    ) -> None:
        self.page, self.smaller, self.skip, self.runs = page.resolve(), smaller, tuple(skip), 0
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def read(self, *kinds: str) -> None:
        """Run all blocks, or those of some languages."""
        for block in blocks(self.page, *(kinds or RUNNABLE)):
            self.run(block)

    def run(self, block: Block) -> str:
        """Run one block, and return what it prints, but for ``dop`` in this process.

        Raises:
            BlockError: a command failed.
        """
        if block.kind == "python":
            return run_python(block, self.page, self.namespace)
        if self.smaller is None:
            return run_shell(block.code)
        if "<<" in block.code:
            return run_shell(block.code, timeout=60)
        return "".join(self._command(command, block) for command in block.commands if not command.startswith(self.skip))

    def _command(self, command: str, block: Block) -> str:
        words = words_of(command)
        if words[0] != "dop" or self.smaller is None:
            return run_shell(command, timeout=60)
        if (ended := status(self._in_a_folder(self.smaller(words[1:])))) != 0:
            raise BlockError(f"{self.page}:{block.line}: {command} ended with status {ended}")
        return ""

    def _in_a_folder(self, arguments: list[str]) -> list[str]:
        """Where a run has no folder it gets one by the time, which several starts within a second would share."""
        if arguments[0] != "fit" or "--trainer.default_root_dir" in arguments or "/config.yaml" in str(arguments):
            return arguments
        self.runs += 1
        return [*arguments, "--trainer.default_root_dir", f"runs/of-this-page/{self.runs}"]


# -------------------------------------------------------------------------------------------------------------- parsing


def check_dop(arguments: Sequence[str]) -> None:
    """Parse a command of ``dop`` without running it.

    Raises:
        BlockError: it would be refused.
    """
    try:
        if arguments[0] == "fit":
            refused = status([*arguments, "--print_config"]) != 0
        else:
            importlib.import_module(VERBS[arguments[0]][0]).parser().parse_args(arguments[1:])
            refused = False
    except (SystemExit, ValueError):
        refused = True
    if refused:
        raise BlockError(f"dop {shlex.join(arguments)} is refused")


class _Parsed(Exception):
    """Leaves a script once it has understood its arguments."""


def check_script(path: Path, arguments: Sequence[str]) -> None:
    """Parse arguments with the parser of a script, without running the script.

    Raises:
        BlockError: the script does not parse its arguments.
        SystemExit: they would be refused.
    """
    with _as_command(path, arguments):
        spec = importlib.util.spec_from_file_location(f"document_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise BlockError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            module.main()
        except _Parsed:
            return
    raise BlockError(f"{path} has parsed no arguments")


@contextlib.contextmanager
def _as_command(path: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Let argparse see the arguments, and leave the script once it has parsed them."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_leave(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        parse(self, *args, **kwargs)
        raise _Parsed

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_leave),
        mock.patch.object(sys, "argv", [str(path), *arguments]),
        mock.patch.object(sys, "path", [str(path.parent), *sys.path]),
    ):
        yield
