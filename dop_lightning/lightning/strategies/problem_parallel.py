"""Strategy ``problem_parallel``: distribute whole batches of problems among processes, without a process group."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.strategies import ParallelStrategy, StrategyRegistry
from torch import Tensor

from dop_lightning.foundation.machine import set_threads
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher
from dop_lightning.lightning.strategies.plan import Plan
from dop_lightning.lightning.strategies.rendezvous import Rendezvous

T = TypeVar("T")


class ProblemParallelStrategy(ParallelStrategy):
    """Strategy in which every process works on different problems, without gradient exchange or a process group.

    Problems are independent, and a process group would make all processes wait for the slowest one and end with the
    first one that fails. Processes are started by ``--trainer.devices`` on this machine, by torchrun or by SLURM, with
    or without GPUs. On a CPU, they divide its threads. At the start, the first process assigns the batches
    (:meth:`share`); afterwards, no process waits for another. With ``dop fit``, another process takes over the work of
    a process that dies.

    Use ``Trainer(strategy="problem_parallel", devices=4)``, or ``--trainer.devices 4``.

    Attributes:
        has_shared: whether the first process has sent the plan to the others.
        plan: assignment of the batches; ``None`` before it is known.
    """

    strategy_name = "problem_parallel"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._num_nodes = 1
        self._rendezvous: Rendezvous | None = None
        self.has_shared = False
        self.plan: Plan | None = None

    @property
    def root_device(self) -> torch.device:
        """Device of this process."""
        return _require_set("parallel_devices", self.parallel_devices)[self.local_rank]

    @property
    def num_processes(self) -> int:
        """Number of processes on this machine."""
        return len(self.parallel_devices or [])

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return self._num_nodes

    @num_nodes.setter
    def num_nodes(self, count: int) -> None:
        self._num_nodes = count

    def _configure_launcher(self) -> None:
        self._launcher = ChildProcessLauncher(
            _require_set("cluster_environment", self.cluster_environment),
            self.num_processes,
            self.num_nodes,
            lambda: self.has_shared,
            self._stop_answering,
        )

    def set_world_ranks(self) -> None:
        """Set the rank of this process in the environment and for Lightning's messages."""
        environment = _require_set("cluster_environment", self.cluster_environment)
        environment.set_global_rank(self.node_rank * self.num_processes + self.local_rank)
        environment.set_world_size(self.num_nodes * self.num_processes)
        rank_zero_only.rank = environment.global_rank()  # type: ignore[attr-defined]

    def setup_environment(self) -> None:
        """Select the device and the number of threads."""
        self.set_world_ranks()
        set_threads(self.num_processes)
        super().setup_environment()

    def share(self, name: str, decide: Callable[[], Any], run: Path) -> Any:
        """Return a decision of the first process in all processes.

        Args:
            name: name of the decision, of letters only.
            decide: called in the first process only; returns a JSON-serializable value.
            run: folder of the run, shared by all processes.

        Raises:
            ValueError: the first process has ended, or has not decided in time.
            OSError: the folder is not writable.
        """
        if self.world_size == 1:
            return decide()
        if self._rendezvous is None:
            self._rendezvous = Rendezvous(_require_set("cluster_environment", self.cluster_environment), run)
        decided = self._rendezvous.share(name, decide)
        self.has_shared = True
        return decided

    def teardown(self) -> None:
        """Wait until all processes have received the decision, unless this process waits for their end anyway."""
        started = getattr(self._launcher, "procs", [])
        if self._rendezvous is not None and not started:
            self._rendezvous.close()
        super().teardown()

    def _stop_answering(self) -> None:
        """Stop answering after the end of all processes started by this one."""
        if self._rendezvous is not None:
            self._rendezvous.close(wait=False)

    def model_to_device(self) -> None:
        """Move the module to the device."""
        _require_set("model", self.model).to(self.root_device)

    def barrier(self, name: str | None = None) -> None:
        """No-op: processes do not wait for each other."""

    def broadcast(self, obj: T, src: int = 0) -> T:
        """Return ``obj``: each process has its own value."""
        return obj

    def reduce(self, tensor: Tensor | Any, *args: Any, **kwargs: Any) -> Tensor | Any:
        """Return ``tensor``: each process has its own value."""
        return tensor

    def all_gather(self, tensor: Tensor, group: Any | None = None, sync_grads: bool = False) -> Tensor:
        """Return ``tensor``: each process has its own value."""
        return tensor

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Return ``decision``: each process decides for itself."""
        return decision

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Save the problems of this process."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)


def _require_set(name: str, value: T | None) -> T:
    """Return a value that Lightning sets before it calls a strategy."""
    if value is None:
        raise RuntimeError(f"problem_parallel needs {name}, which the Trainer sets before it starts")
    return value


StrategyRegistry.register(
    ProblemParallelStrategy.strategy_name,
    ProblemParallelStrategy,
    description="Distribute whole batches of problems among processes, without a process group",
)
