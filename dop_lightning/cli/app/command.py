"""The verb ``dop app``: its options, its socket and its folder."""

import argparse
import os
import socket
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dop_lightning.cli.options import OptionParser
from dop_lightning.foundation.units import parse_bytes
from dop_lightning.foundation.user_paths import user_path

LOOPBACK = "127.0.0.1"

DEFAULT_UPLOAD = "1G"


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop app``."""
    result = OptionParser(
        prog="dop app",
        description="Open a page in the browser that restores photographs, and separates tables and videos. It runs on "
        "this machine, and only this machine can open it: the printed address contains a random token. Ctrl-C saves "
        "the state of the running job and stops.",
        epilog="dop app --folder restored",
    )
    result.add_argument(
        "--port", type=int, default=0, metavar="N", help="port of the page, 1024 to 65535; default: a free one"
    )
    result.add_argument("--host", default=LOOPBACK, metavar="H", help=f"only {LOOPBACK} is supported")
    result.add_argument(
        "--folder",
        metavar="DIR",
        help="keep files and results in this folder, and offer them again at the next start; default: a temporary "
        "folder that is removed at the end",
    )
    result.add_argument(
        "--max-upload", default=DEFAULT_UPLOAD, metavar="SIZE", help="largest file, such as 200M; default: %(default)s"
    )
    result.add_argument("--no-browser", action="store_true", help="print the address without opening a browser")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        ValueError: an option is out of range.
        OSError: the port is in use, or the folder cannot be created.
        ImportError: a package of the extra ``app`` is not installed.
    """
    options = parser().parse_args(arguments)
    if options.host not in (LOOPBACK, "localhost"):
        raise ValueError(
            f"--host must be {LOOPBACK}, got {options.host!r}: the page is for this machine only. To use it on "
            "another one, forward the port: ssh -L PORT:127.0.0.1:PORT"
        )
    if options.port and not 1024 <= options.port <= 65535:
        raise ValueError(f"--port must be from 1024 to 65535, got {options.port}")
    limit = parse_bytes(options.max_upload, "--max-upload")
    try:
        from dop_lightning.cli.app.server import serve
    except ImportError as error:
        raise ImportError(f'{error.name} is not installed: pip install "dop_lightning[app]"') from error
    with bound_socket(options.port) as bound, job_folder(options.folder) as folder:
        serve(bound, folder, limit, opens_browser=not options.no_browser, is_kept=options.folder is not None)
    return 0


@contextmanager
def bound_socket(port: int) -> Iterator[socket.socket]:
    """Yield a socket that is bound to the loopback address.

    Args:
        port: number of the port, 0 for a free one.

    Raises:
        OSError: the port is in use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((LOOPBACK, port))
        except OSError as error:
            raise OSError(f"port {port} is in use: {error.strerror}; pass another --port") from error
        yield bound


@contextmanager
def job_folder(kept: str | None) -> Iterator[Path]:
    """Yield the folder of all jobs: the given one, or a temporary one that is removed at the end.

    Raises:
        OSError: the folder cannot be created, or other users may write to it.
    """
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="dop-app-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    path = user_path(kept).absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = path.stat()
    if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{kept}: --folder must belong to you and be writable only by you: chmod go-w {kept}")
    yield path
