"""Run the commands of a document from top to bottom in an empty folder, and print the time of each block.

    python scripts/run_document.py docs/photograph.md

Blocks of the languages `sh` and `python` are run. Each shell block runs in a separate bash; all Python blocks share one
namespace. The folder contains configs/ and data/ of the repository, like a fresh checkout.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.documents.harness import RUNNABLE, BlockError, Reader, blocks, prepare  # noqa: E402


def run(page: Path, folder: Path, show: bool = False) -> tuple[bool, float]:
    """Run a page, and return whether all blocks succeeded, and the seconds."""
    reader, total, fine = Reader(page, smaller=None), 0.0, True
    prepare(folder)
    os.chdir(folder)
    for block in blocks(reader.page, *RUNNABLE):
        begin = time.perf_counter()
        try:
            output = reader.run(block)
        except BlockError as error:
            output, fine = str(error), False
        except Exception:
            output, fine = traceback.format_exc(), False
        seconds = time.perf_counter() - begin
        total += seconds
        print(f"{block.line:5d}  {block.kind:<7} {seconds:7.1f} s  {block.first_line[:80]}", flush=True)
        if output and (show or not fine):
            print("\n".join(f"       | {line}" for line in output.splitlines()), flush=True)
        if not fine:
            break
    return fine, total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--folder", type=Path, help="empty working folder, which is kept (default: a temporary one)")
    parser.add_argument("--show", action="store_true", help="print the output of the blocks")
    options = parser.parse_args()
    if not options.page.is_file():
        parser.error(f"{options.page} does not exist")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"--folder must be empty, got {folder}")
        fine, seconds = run(options.page, folder.resolve(), options.show)
        os.chdir(ROOT)
    print(f"{options.page}: {'succeeded' if fine else 'FAILED'}, {seconds:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
