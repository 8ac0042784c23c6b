"""Launch the processes of a run on this machine. The first process waits for the others and forwards signals."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from lightning_fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from dop_lightning.foundation.launched import CHILD, RUN_FOLDER, START

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from lightning_fabric.plugins import ClusterEnvironment


class ChildProcessLauncher(_SubprocessScriptLauncher):
    """Start one process for each additional device, like Lightning, but let the processes end independently.

    Lightning ends all processes if one has died, and returns while others are still running. Here the others continue,
    and :meth:`launch` returns when the last one has ended.

    Args:
        environment: cluster environment of the processes.
        processes: number of processes on this machine.
        nodes: number of machines.
        has_shared: returns whether the first process has sent the plan to the others.
        on_end: called when all processes have ended.

    Attributes:
        command: command that starts a process; by default the one that started this process.
        stopped_by: signal received while this process had finished its work and was waiting for the others.
    """

    def __init__(
        self,
        environment: "ClusterEnvironment",
        processes: int,
        nodes: int,
        has_shared: Callable[[], bool],
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(environment, processes, nodes)
        self._has_shared = has_shared
        self._on_end = on_end
        self._start_name = secrets.token_hex(16)
        self.command: Sequence[str] | None = None
        self.stopped_by: Literal["", "SIGINT", "SIGTERM"] = ""

    def launch(self, function: Callable, *args: Any, trainer: "pl.Trainer | None" = None, **kwargs: Any) -> Any:
        """Start the other processes, run ``function``, and wait for the others.

        Raises:
            ValueError: the number of processes of the environment is not that of the trainer.
        """
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        external = self.cluster_environment.creates_processes_externally
        if external or self.num_processes == 1:
            return function(*args, **kwargs)
        if trainer is None:
            raise RuntimeError("the launcher needs the trainer, to pass its folder to the other processes")
        with environment_variables(self.environment(trainer.default_root_dir)):
            self.procs = [self._start(rank) for rank in range(1, self.num_processes)]
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                if not self._has_shared():  # the others wait for a plan that will not be sent
                    self.kill(signal.SIGTERM)
                elif any(process.poll() is None for process in self.procs):
                    print(f"This process has failed ({error!r:.300}); the others continue", file=sys.stderr)
                raise
            finally:
                self._wait()
                self._on_end()

    def environment(self, folder: str | Path) -> dict[str, str]:
        """Return the environment variables of all processes of the run.

        Args:
            folder: folder of the run.
        """
        cluster = self.cluster_environment
        return {
            **({START: self._start_name} if self.num_nodes == 1 else {}),
            "MASTER_ADDR": cluster.main_address,
            "NODE_RANK": str(cluster.node_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
            RUN_FOLDER: os.fspath(folder),
        }

    @property
    def start_command(self) -> list[str]:
        """Command that starts a process."""
        return list(self.command or _basic_subprocess_cmd())

    def _start(self, local_rank: int) -> subprocess.Popen:
        return subprocess.Popen(
            self.start_command, env={**os.environ, "LOCAL_RANK": str(local_rank), CHILD: str(os.getpid())}
        )

    def kill(self, signum: int) -> None:
        """Send a signal to the other processes that are still running."""
        for process in self.procs:
            process.send_signal(signum)

    def _wait(self) -> None:
        """Wait for the other processes. Signals are forwarded; a second one ends them immediately."""
        with handling(self._handle):
            while any(process.poll() is None for process in self.procs):
                time.sleep(0.05)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self.stopped_by:
            self.stopped_by = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            print("\nStopping the other processes (press again to stop immediately)", file=sys.stderr)
        self.kill(number)

    def deaths(self) -> list[int]:
        """Return the local ranks of the processes that were killed by a signal."""
        codes = {rank: process.returncode for rank, process in enumerate(self.procs, start=1)}
        return [rank for rank, code in codes.items() if code is not None and code < 0]

    def failures(self) -> dict[int, str]:
        """Return how the processes that failed have ended, by local rank. Successful and stopped ones are skipped."""
        reported = {0, 128 + signal.SIGINT, 128 + signal.SIGTERM}
        ends = {rank: process.returncode for rank, process in enumerate(self.procs, start=1)}
        return {rank: format_exit(code) for rank, code in ends.items() if code not in reported}


def format_exit(code: int) -> str:
    """Describe how a process has ended, by its exit status.

    >>> format_exit(-9), format_exit(2)
    ('was ended by SIGKILL', 'ended with the status 2')
    """
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with the status {code}"


@contextmanager
def environment_variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside a block, and restore the previous values afterwards."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM inside a block, in the main thread."""
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread, which alone receives signals
            break
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
