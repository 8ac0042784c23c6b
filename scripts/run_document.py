"""Runs a document from top to bottom as it stands, in an empty folder, and tells the time of each of its blocks.

Blocks of the languages `sh` and `python` are run: those of the shell by bash, each by itself, those of Python one after
the other in one namespace. `yaml` is for reading, `console` shows what is not run, and blocks without a language are
what was printed. The folder has the repository's configs/ and data/, as where a newcomer has unpacked it.

    python scripts/run_document.py docs/first_hour.md
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(?P<marks>`{3,})(?P<kind>[^\n`]*)\n(?P<code>.*?)^(?P=marks)`*\s*$", re.MULTILINE | re.DOTALL)
KINDS = {"sh", "python", "yaml", "console", ""}
"""The languages of blocks; directives of the site, in braces, are no blocks."""


class Block(NamedTuple):
    """A block of a document."""

    kind: str
    code: str
    line: int

    @property
    def first_line(self) -> str:
        return next((line for line in self.code.splitlines() if line.strip()), "")


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = [Block(m["kind"].strip(), m["code"], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]
    return [block for block in found if not block.kind.startswith("{")]


def commands(block: Block) -> list[str]:
    """The commands of a block of the shell: continued lines are joined, comments are left out."""
    joined = re.sub(r"\\\n\s*", "", block.code)
    lines = (re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def prepare(folder: Path) -> None:
    """What lies in the folder where a newcomer works."""
    for name in ("configs", "data", "scripts"):
        (folder / name).symlink_to(ROOT / name)


def run_shell(code: str, folder: Path) -> tuple[bool, str]:
    """Whether the shell went through, and what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode == 0, done.stdout


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> tuple[bool, str]:
    """Whether the code went through, and what went wrong; what it prints is printed."""
    try:
        exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)
    except Exception:
        return False, traceback.format_exc()
    return True, ""


def run(page: Path, folder: Path, show: bool = False) -> tuple[bool, float]:
    """Run a page; whether all of it went through, and the seconds that it took."""
    page, total, namespace = page.resolve(), 0.0, {"__name__": "__main__"}
    prepare(folder)
    os.chdir(folder)
    for block in blocks(page):
        if block.kind not in ("sh", "python"):
            continue
        begin = time.perf_counter()
        fine, said = run_shell(block.code, folder) if block.kind == "sh" else run_python(block, page, namespace)
        seconds = time.perf_counter() - begin
        total += seconds
        print(f"{block.line:5d}  {block.kind:<7} {seconds:7.1f} s  {block.first_line[:80]}", flush=True)
        if said and (show or not fine):
            print("\n".join(f"       | {line}" for line in said.splitlines()), flush=True)
        if not fine:
            return False, total
    return True, total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument(
        "--folder", type=Path, help="an empty folder to work in, and to keep (default: a temporary one)"
    )
    parser.add_argument("--show", action="store_true", help="show what the commands print")
    options = parser.parse_args()
    if not options.page.is_file():
        parser.error(f"there is no file {options.page}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} is not empty")
        fine, seconds = run(options.page, folder.resolve(), options.show)
        os.chdir(ROOT)
    print(f"{options.page}: {'went through' if fine else 'FAILED'}, {seconds:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
