"""Start ``dop`` in forks of a process that has imported all modules, which takes a tenth of a second.

Apart from their start, these processes behave like others: they can be killed, stopped and waited for.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch

from dop_lightning.cli.configs import recover, separate  # noqa: F401 — imported before the forks
from dop_lightning.cli.experiments import lightning_cli, takeover  # noqa: F401
from dop_lightning.cli.main import main
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher


class ForkedCommand:
    """Run a command of ``dop`` in a fork of this process, with a subset of the interface of ``subprocess.Popen``.

    Args:
        arguments: arguments of ``dop``.
        environment: additional environment variables.
        log: file to which standard output and error are appended.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                status = _run(arguments, environment, log)
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("dop", timeout or 0.0)
            time.sleep(0.01)
        return self.returncode or 0

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Act as a process that was started with these arguments."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        signal.signal(number, default)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    sys.argv = ["dop", *arguments]

    def start(_: ChildProcessLauncher, local_rank: int) -> ForkedCommand:
        own = {"LOCAL_RANK": str(local_rank), "DOP_CHILD": str(os.getpid())}
        return ForkedCommand(arguments, own, log)

    def popen(_: Sequence[str], env: Mapping[str, str]) -> ForkedCommand:
        return ForkedCommand(arguments, env, log)

    ChildProcessLauncher._start = start  # type: ignore[assignment,method-assign]
    takeover.subprocess = SimpleNamespace(Popen=popen)  # type: ignore[assignment]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return main()
