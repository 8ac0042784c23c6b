"""A process group of ``torch.distributed`` that meets by files in a folder. On one machine it uses loopback alone."""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.foundation.launched import Place, is_orphan

MEETING = "DOP_MEETING"
"""Set for processes that were started on this machine together: the name of their meeting."""

PREFIX = ".ranks-"
"""Of the names of all files that are made here."""

PATIENCE = 600.0
"""Seconds that a process waits for the others at the start."""

SLOWEST = timedelta(hours=2)
"""How long a process waits for others that are slower."""

PAUSE = 0.05
"""Seconds between two looks into the folder."""


class Meeting:
    """The processes of one start, in a folder that all of them see.

    Args:
        folder: of the run; made if missing.
        place: of this process.

    Attributes:
        name: of this start, the same for all its processes and for no other start.

    Raises:
        ValueError: other processes have not come in time, or the one that started this one has ended.
    """

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder, self.place = folder, place
        folder.mkdir(parents=True, exist_ok=True)
        self.name = os.environ.get(MEETING) or self._meet()

    def _file(self, what: str) -> Path:
        return self.folder / f"{PREFIX}{what}"

    def _meet(self) -> str:
        """Agree on a name, whatever earlier starts have left.

        Each process writes a token of its own. The first one answers with a name and the tokens that it has seen, until
        all have come to the store of that name. A process believes an answer only if it contains its token.
        """
        own, end = secrets.token_hex(16), time.monotonic() + PATIENCE
        if self.place.rank > 0:
            return self._ask(own, end)
        for old in self.folder.glob(f"{PREFIX}*"):
            if not old.name.startswith(f"{PREFIX}hello-"):
                old.unlink(missing_ok=True)
        seen: dict[str, str] = {}
        while len(self._came(own)) < self.place.size - 1:
            tokens = {str(rank): token for rank in range(1, self.place.size) if (token := self._token(rank))}
            if tokens != seen:
                atomic_json(self._file("answer.json"), {"name": own, "tokens": tokens})
                seen = tokens
            self._wait(end)
        self._file("answer.json").unlink(missing_ok=True)
        for came in self._came(own):
            came.unlink(missing_ok=True)
        return own

    def _ask(self, own: str, end: float) -> str:
        hello = self._file(f"hello-{self.place.rank}")
        hello.write_text(own, encoding="ascii")
        while True:
            try:
                answer = json.loads(self._file("answer.json").read_text(encoding="utf-8"))
                if answer["tokens"].get(str(self.place.rank)) == own:
                    break
            except (OSError, ValueError):  # not there yet, or left by an earlier start and removed
                pass
            self._wait(end)
        hello.unlink(missing_ok=True)
        self._file(f"came-{answer['name']}-{self.place.rank}").touch()
        return str(answer["name"])

    def _token(self, rank: int) -> str:
        try:
            return self._file(f"hello-{rank}").read_text(encoding="ascii")
        except (OSError, ValueError):
            return ""

    def _came(self, name: str) -> list[Path]:
        return [file for file in self.folder.iterdir() if file.name.startswith(f"{PREFIX}came-{name}-")]

    def _wait(self, end: float) -> None:
        if is_orphan():
            raise ValueError(f"rank {self.place.rank}: the process that has started this one has ended")
        if time.monotonic() > end:
            raise ValueError(
                f"rank {self.place.rank}: not all of the {self.place.size} processes have come to {self.folder} within "
                f"{PATIENCE:.0f} s; do all of them see this folder?"
            )
        time.sleep(PAUSE)

    @property
    def store(self) -> Path:
        """Return the file of the store of ``torch.distributed``."""
        return self._file(f"store-{self.name}")

    @property
    def failure(self) -> Path:
        """Return the file that says why this start has failed."""
        return self._file(f"failure-{self.name}")

    def record_failure(self, text: str) -> bool:
        """Write why this start has failed, unless another process has; return whether it was this one."""
        try:
            with self.failure.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
        except OSError:  # a full disk is no reason to be silent
            return True
        return True


@contextmanager
def joined(meeting: Meeting, device: torch.device) -> Iterator[None]:
    """Make the default process group: NCCL on CUDA, else gloo.

    Processes on one machine use its loopback interface, unless ``GLOO_SOCKET_IFNAME`` or ``NCCL_SOCKET_IFNAME`` is set.

    Args:
        meeting: of the processes.
        device: of this process.

    Raises:
        ValueError: the group cannot be made.
    """
    place = meeting.place
    if place.local_size == place.size and (loopback := find_loopback()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.FileStore(os.fspath(meeting.store), place.size),
            rank=place.rank,
            world_size=place.size,
            timeout=SLOWEST,
            device_id=device if device.type == "cuda" else None,
        )
    except RuntimeError as error:
        raise ValueError(f"rank {place.rank}: cannot join the other processes ({error})") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def find_loopback() -> str:
    """Return the name of the loopback interface; empty if it has another name than usual."""
    names = {name for _, name in socket.if_nameindex()}
    return next((name for name in ("lo", "lo0") if name in names), "")
