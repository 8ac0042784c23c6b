"""What the first process of a run decides for all of them, told once at the start."""

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch.distributed import DistError, TCPStore

from dop_lightning.lightning.strategies.launched import is_orphan

PATIENCE = 600.0
"""Seconds that a process waits for the first one: it may read many files before it decides."""

ATTEMPT = 2.0
"""Seconds of one attempt to reach it."""

FAREWELL = 60.0
"""Seconds that the first one waits at its end for those that have not asked yet."""


class Rendezvous:
    """A store of short texts in the first process (or in the agent of torchrun), which the others ask.

    There is no process group: once all have been told, nobody waits for anybody, and any of them may die.

    Args:
        environment: knows the ranks, and the address and port of the first process.

    Raises:
        ValueError: the first process cannot be reached.
    """

    def __init__(self, environment: ClusterEnvironment) -> None:
        self.rank, self.ranks = environment.global_rank(), environment.world_size()
        self._hosts = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        self._where = f"{environment.main_address}:{environment.main_port}"
        self._asked: dict[str, int] = {}
        self._last = ""
        self._store = self._connect(environment)
        self._store.set_timeout(timedelta(seconds=PATIENCE))

    def _connect(self, environment: ClusterEnvironment) -> TCPStore:
        """The store, once it is there; a process whose first one is on this machine sees whether that has ended."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return TCPStore(
                    environment.main_address,
                    environment.main_port,
                    is_master=self._hosts,
                    timeout=timedelta(seconds=min(ATTEMPT, PATIENCE)),
                    wait_for_workers=False,
                )
            except DistError as error:
                reached = f"rank {self.rank}: cannot reach the first process at {self._where}"
                if is_orphan():
                    raise ValueError(f"{reached}, which has ended") from error
                if self._hosts or time.monotonic() >= end:
                    raise ValueError(f"{reached} ({error})") from error

    def share(self, name: str, decide: Callable[[], Any]) -> Any:
        """What the first process decides; all call this as often as it does.

        Args:
            name: of the decision.
            decide: called by the first process alone; gives what JSON can hold.

        Raises:
            ValueError: the first process has not decided in time.
        """
        count = self._asked[name] = self._asked.get(name, 0) + 1
        key = f"dop/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}/{count}"
        if self.rank == 0:
            text = json.dumps(decide())
            self._store.set(key, text)
            self._last = f"{key}/told"
            return json.loads(text)
        try:
            told = self._store.get(key)
        except DistError as error:
            raise ValueError(
                f"rank {self.rank}: the first process at {self._where} has not told the {name} within "
                f"{PATIENCE:.0f} s; has it failed?"
            ) from error
        self._store.add(f"{key}/told", 1)
        return json.loads(told)

    def close(self) -> None:
        """The first process stays until the others have been told, if it is the one that they ask."""
        if not self._hosts or not self._last:
            return
        end = time.monotonic() + FAREWELL
        while self._store.add(self._last, 0) < self.ranks - 1 and time.monotonic() < end:
            time.sleep(0.05)
