"""Run ``dop …`` commands as tasks of a Ray cluster. Ray is imported only when a cluster is used."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dop_lightning.foundation.launched import CHILD

PAUSE = 0.5
"""Seconds between two checks of a task for the end of its command or a request to stop."""

LAUNCHER_PREFIXES = ("SLURM_", "TORCHELASTIC_", "OMPI_", "PMI_")
"""Variables of launchers that may have started Ray. Removed, so that commands do not act as their processes."""

OBJECT_STORE = 80 * 2**20
"""Object store of a local cluster in bytes; small, since tasks only return an exit status."""

CONNECTION_TIMEOUT = 10.0
"""Seconds to wait for an answer from the address of a cluster."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class RayTask:
    """A command to run.

    Attributes:
        name: name in messages and in Ray.
        arguments: arguments of ``python -m dop_lightning``.
        folder: working directory, on all nodes.
        log: absolute path of the file to append its output to.
        environment: environment variables to set.
    """

    name: str
    arguments: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskEnd:
    """Result of a task.

    Attributes:
        task: the task.
        status: exit status of the command, negative if a signal ended it; ``None`` if its worker or node died, or if it
            could not be started.
        death: how the command or its worker died, such as ``was ended by SIGKILL``; empty if it did not die.
        error: why the command could not be started; empty if it was started.
    """

    task: RayTask
    status: int | None = None
    death: str = ""
    error: str = ""


def require_ray(user: str) -> None:
    """Check that Ray is installed.

    Args:
        user: name of the command that needs it, for the error message.

    Raises:
        ImportError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ImportError(f'{user} --cluster ray needs Ray: pip install "dop_lightning[ray]"')


class RayTasks:
    """Tasks on a cluster. Each runs a command in a separate process, which ends with its Ray worker.

    Usage statistics of Ray are off unless ``RAY_USAGE_STATS_ENABLED`` is set. A local cluster listens on the loopback
    interface only and is protected by a secret token, so that other users and machines cannot use its ports. Use this
    class as a context manager.

    Args:
        folder: folder that is shared by all nodes. A file in it stops the tasks.
        address: address of a running cluster; ``auto`` for the one on this machine. ``None`` uses the environment
            variable ``RAY_ADDRESS``, or else starts a local cluster, which ends with this process.
        cpus: cores per task, at least 1; also its number of threads, unless ``OMP_NUM_THREADS`` is set.
        gpus: GPUs per task; ``None`` uses ``devices`` if the cluster has GPUs, and 0 otherwise.
        jobs: maximum number of concurrent tasks; ``None`` is the capacity of the cluster.
        devices: number of devices that a task uses, at least 0.

    Raises:
        ValueError: no cluster answers at the address within :data:`CONNECTION_TIMEOUT` seconds, or a task needs more
            than the cluster has.
    """

    def __init__(
        self,
        folder: Path,
        address: str | None = None,
        cpus: int = 1,
        gpus: int | None = None,
        jobs: int | None = None,
        devices: int = 1,
    ) -> None:
        self.cpus, self.jobs = cpus, jobs
        self._ray = _connect(address or os.environ.get("RAY_ADDRESS"))
        resources = self._ray.cluster_resources()
        self.gpus = (devices if resources.get("GPU", 0) else 0) if gpus is None else gpus
        self._require("cpus", cpus, resources.get("CPU", 0))
        self._require("gpus", self.gpus, resources.get("GPU", 0))
        rooms = [resources.get("CPU", 0) // cpus, *([resources["GPU"] // self.gpus] if self.gpus else [])]
        self.slots = max(1, int(min([*rooms, *([jobs] if jobs else [])])))
        self._stop = folder.absolute() / f"stop-{secrets.token_hex(8)}"
        self._remote = self._ray.remote(num_cpus=cpus, num_gpus=self.gpus, max_retries=0)(_run)
        self._waiting: list[RayTask] = []
        self._running: dict[Any, RayTask] = {}

    def _require(self, name: str, requested: int, available: float) -> None:
        if requested > available:
            self.close()
            raise ValueError(f"{name} must be at most {available:g}, the total of the cluster, got {requested}")

    def __enter__(self) -> RayTasks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of every task: number of threads, and search path of Python."""
        own = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(self.cpus)}
        return own | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}

    @property
    def is_busy(self) -> bool:
        """Whether any task is waiting or running."""
        return bool(self._waiting or self._running)

    def submit(self, task: RayTask) -> None:
        """Run ``task`` as soon as there is room for it."""
        self._waiting.append(task)
        self._start()

    def _start(self) -> None:
        while self._waiting and not self.is_stopping and (self.jobs is None or len(self._running) < self.jobs):
            task = self._waiting.pop(0)
            reference = self._remote.options(name=task.name).remote(task, self._stop, self.environment)
            self._running[reference] = task

    def wait(self, seconds: float) -> list[TaskEnd]:
        """Wait at most ``seconds`` until a task has ended, and return the tasks that have."""
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        ended = [self._task_end(reference, self._running.pop(reference)) for reference in done]
        self._start()
        return ended

    def _task_end(self, reference: Any, task: RayTask) -> TaskEnd:
        errors = self._ray.exceptions
        try:
            status = int(self._ray.get(reference))
        except errors.WorkerCrashedError:
            return TaskEnd(task, death="died with its Ray worker process")
        except (errors.NodeDiedError, errors.LocalRayletDiedError):
            return TaskEnd(task, death="died with its node")
        except errors.OutOfMemoryError:
            return TaskEnd(task, death="was ended by Ray, because its node ran out of memory")
        except (errors.RayError, OSError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return TaskEnd(task, error=lines[-1] if lines else type(error).__name__)
        return TaskEnd(task, status, f"was ended by {signal.Signals(-status).name}" if status < 0 else "")

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.exists()

    def stop(self) -> None:
        """Make all running commands save and end, as with SIGTERM. Waiting tasks are not started."""
        self._waiting.clear()
        self._stop.touch()

    def close(self) -> None:
        """Kill all running tasks and disconnect from the cluster."""
        self._ray.shutdown()
        if hasattr(self, "_stop"):
            self._stop.unlink(missing_ok=True)


def _connect(address: str | None) -> Any:
    """Connect to a cluster, and return the module ``ray``."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # tasks without GPUs see none
    local = {}
    if address in (None, "local"):
        # read while Ray is imported: the address of the node is 127.0.0.1 then, and nothing listens on another one
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    else:
        os.environ.setdefault("RAY_py_gcs_connect_timeout_s", f"{CONNECTION_TIMEOUT:.0f}")
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # tries to connect
        if address != "auto":
            _require_answer(address)
    import ray

    before = signal.getsignal(signal.SIGTERM)
    try:
        with _silence_stderr():
            ray.init(address=address or "local", log_to_driver=False, logging_level="CRITICAL", **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(_cluster_error(address, " ".join(str(error).split()))) from error
    finally:
        _restore_handler(before)
    return ray


def _require_answer(address: str) -> None:
    """Check that something listens on an address: Ray itself would try for more than a minute.

    Raises:
        ValueError: nothing does, or the address has no host or no port.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ValueError(_cluster_error(address, "it must be HOST:PORT or auto"))
    try:
        socket.create_connection((host, port), timeout=CONNECTION_TIMEOUT).close()
    except TimeoutError as error:
        raise ValueError(_cluster_error(address, f"no answer within {CONNECTION_TIMEOUT:.0f} s")) from error
    except OSError as error:
        raise ValueError(_cluster_error(address, error.strerror or str(error))) from error


def _cluster_error(address: str | None, reason: str) -> str:
    return f"address must be that of a running Ray cluster, got {address!r}: {reason}"


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Redirect stderr to /dev/null. Ray's libraries print each attempt to connect; one error message suffices."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _restore_handler(handler: Any) -> None:
    try:
        signal.signal(signal.SIGTERM, handler)  # Ray's handler ends the process silently
    except ValueError:  # not in the main thread, where Ray does not set a handler either
        return


# ------------------------------------------------------------------------------------------------------ code of a task


def _run(task: RayTask, stop: Path, environment: Mapping[str, str]) -> int:
    """Run a command and return its exit status."""
    if _is_listed(stop):
        return 128 + signal.SIGTERM
    variables = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_PREFIXES)}
    variables |= {**environment, **task.environment, CHILD: str(os.getpid())}
    library, parent = (ctypes.CDLL(None) if sys.platform == "linux" else None), os.getpid()

    def begin() -> None:
        """End with the parent process, and unblock the signals that Ray blocks in its workers."""
        if library is not None:
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    with task.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dop_lightning", *task.arguments],
            cwd=task.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=begin,
            start_new_session=True,
        )
    try:
        return _wait(process, stop)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], stop: Path) -> int:
    is_told = False
    while True:
        try:
            return process.wait(PAUSE)
        except subprocess.TimeoutExpired:
            if not is_told and _is_listed(stop):
                is_told = True
                process.terminate()


def _is_listed(path: Path) -> bool:
    """Return whether a file exists. Lists its folder, since network file systems cache that a name does not exist."""
    return path in path.parent.iterdir()
