"""Process group of ``torch.distributed`` that is set up with files in a shared folder.

Processes on one machine use the loopback interface only.
"""

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

MEETING_VARIABLE = "DOP_MEETING"
"""Name of the :class:`Meeting`, set for processes that were started together on this machine."""

PREFIX = ".ranks-"
"""Prefix of the names of all files created here."""

JOIN_TIMEOUT = 600.0
"""Maximum time in seconds that a process waits for the others at the start."""

SLOWEST = timedelta(hours=2)
"""Maximum time that a process waits for slower ones during the run."""

PAUSE = 0.05
"""Seconds between two checks of the folder."""


class Meeting:
    """Rendezvous of the processes of one launch, in a folder that all of them can access.

    Args:
        folder: folder of the run, created if missing.
        place: rank of this process.

    Attributes:
        name: name that is unique to this launch and the same for all of its processes.

    Raises:
        ValueError: another process did not arrive in time, or the parent of this process has ended.
    """

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder, self.place = folder, place
        folder.mkdir(parents=True, exist_ok=True)
        self.name = os.environ.get(MEETING_VARIABLE) or self._agree_on_name()

    def _path(self, what: str) -> Path:
        return self.folder / f"{PREFIX}{what}"

    def _agree_on_name(self) -> str:
        """Agree on a name, ignoring files of earlier launches.

        Each process writes a random token. Rank 0 answers with a name and all tokens that it has seen, until all
        processes have confirmed the name. A process accepts an answer only if it contains its own token.
        """
        own, end = secrets.token_hex(16), time.monotonic() + JOIN_TIMEOUT
        if self.place.rank > 0:
            return self._request_name(own, end)
        for old in self.folder.glob(f"{PREFIX}*"):
            if not old.name.startswith(f"{PREFIX}hello-"):
                old.unlink(missing_ok=True)
        seen: dict[str, str] = {}
        while len(self._arrivals(own)) < self.place.size - 1:
            tokens = {str(rank): token for rank in range(1, self.place.size) if (token := self._token(rank))}
            if tokens != seen:
                atomic_json(self._path("answer.json"), {"name": own, "tokens": tokens})
                seen = tokens
            self._wait(end)
        self._path("answer.json").unlink(missing_ok=True)
        for arrival in self._arrivals(own):
            arrival.unlink(missing_ok=True)
        return own

    def _request_name(self, own: str, end: float) -> str:
        hello = self._path(f"hello-{self.place.rank}")
        hello.write_text(own, encoding="ascii")
        while True:
            try:
                answer = json.loads(self._path("answer.json").read_text(encoding="utf-8"))
                if answer["tokens"].get(str(self.place.rank)) == own:
                    break
            except (OSError, ValueError):  # not written yet, or left by an earlier launch and removed
                pass
            self._wait(end)
        hello.unlink(missing_ok=True)
        self._path(f"came-{answer['name']}-{self.place.rank}").touch()
        return str(answer["name"])

    def _token(self, rank: int) -> str:
        try:
            return self._path(f"hello-{rank}").read_text(encoding="ascii")
        except (OSError, ValueError):
            return ""

    def _arrivals(self, name: str) -> list[Path]:
        return [file for file in self.folder.iterdir() if file.name.startswith(f"{PREFIX}came-{name}-")]

    def _wait(self, end: float) -> None:
        if is_orphan():
            raise ValueError(f"rank {self.place.rank}: the parent process has ended")
        if time.monotonic() > end:
            raise ValueError(
                f"rank {self.place.rank}: not all {self.place.size} processes have written to {self.folder} within "
                f"{JOIN_TIMEOUT:.0f} s; check that all of them can access this folder"
            )
        time.sleep(PAUSE)

    @property
    def store(self) -> Path:
        """File of the ``FileStore`` of ``torch.distributed``."""
        return self._path(f"store-{self.name}")

    @property
    def failure(self) -> Path:
        """File with the reason why this launch failed, if it did."""
        return self._path(f"failure-{self.name}")

    def record_failure(self, text: str) -> bool:
        """Write why this launch failed, unless another process has already.

        Returns:
            Whether this process should report the failure: ``False`` if another process has recorded one.
        """
        try:
            with self.failure.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
        except OSError:  # report the failure even if the disk is full
            return True
        return True


@contextmanager
def joined(meeting: Meeting, device: torch.device) -> Iterator[None]:
    """Initialize the default process group in a ``with`` block: NCCL on CUDA, otherwise gloo.

    Processes on one machine use its loopback interface, unless ``GLOO_SOCKET_IFNAME`` or ``NCCL_SOCKET_IFNAME`` is set.

    Args:
        meeting: rendezvous of the processes.
        device: device of this process.

    Raises:
        ValueError: the group cannot be initialized.
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
    """Return the name of the loopback interface, or an empty string if it has an unusual name."""
    names = {name for _, name in socket.if_nameindex()}
    return next((name for name in ("lo", "lo0") if name in names), "")
