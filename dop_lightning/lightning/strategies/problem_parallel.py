"""``problem_parallel``: whole batches of problems dealt to processes, without a process group."""

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
    """Every process works on problems of its own: no gradients, no barriers, no process group.

    Independent problems have nothing to tell each other, and a process group would make all of them wait for the
    slowest and die with the first. Processes are those of ``--trainer.devices`` on this machine, of torchrun, or of
    SLURM, with GPUs or without. On a CPU they divide its threads. The first of them decides at the start who works on
    what (:meth:`share`); from then on nobody waits for anybody. ``dop fit`` lets another process take over the
    work of one that dies.

    ``Trainer(strategy="problem_parallel", devices=4)``, ``--trainer.devices 4``.

    Attributes:
        has_shared: whether the first process has told the others what to work on.
        plan: who works on what; ``None`` before it is known.
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
        """The device of this process."""
        return _known("parallel_devices", self.parallel_devices)[self.local_rank]

    @property
    def num_processes(self) -> int:
        """Processes on this machine."""
        return len(self.parallel_devices or [])

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return self._num_nodes

    @num_nodes.setter
    def num_nodes(self, count: int) -> None:
        self._num_nodes = count

    def _configure_launcher(self) -> None:
        self._launcher = ChildProcessLauncher(
            _known("cluster_environment", self.cluster_environment),
            self.num_processes,
            self.num_nodes,
            lambda: self.has_shared,
            self._end_sharing,
        )

    def set_world_ranks(self) -> None:
        """Tell the environment and Lightning's messages which process this is."""
        environment = _known("cluster_environment", self.cluster_environment)
        environment.set_global_rank(self.node_rank * self.num_processes + self.local_rank)
        environment.set_world_size(self.num_nodes * self.num_processes)
        rank_zero_only.rank = environment.global_rank()  # type: ignore[attr-defined]

    def setup_environment(self) -> None:
        """Choose the device, and a share of the threads."""
        self.set_world_ranks()
        set_threads(self.num_processes)
        super().setup_environment()

    def share(self, name: str, decide: Callable[[], Any], run: Path) -> Any:
        """What the first process decides, for all of them; of a single one, its own decision.

        Args:
            name: of the decision, of letters.
            decide: called by the first process; gives what JSON can hold.
            run: the folder of the run, which all processes see.

        Raises:
            ValueError: the first process has ended, or has not decided in time.
            OSError: the folder cannot be written.
        """
        if self.world_size == 1:
            return decide()
        if self._rendezvous is None:
            self._rendezvous = Rendezvous(_known("cluster_environment", self.cluster_environment), run)
        decided = self._rendezvous.share(name, decide)
        self.has_shared = True
        return decided

    def teardown(self) -> None:
        """Wait for those who have not been told yet, unless this process waits for their end anyway."""
        started = getattr(self._launcher, "procs", [])
        if self._rendezvous is not None and not started:
            self._rendezvous.close()
        super().teardown()

    def _end_sharing(self) -> None:
        """After the end of all processes that this one has started."""
        if self._rendezvous is not None:
            self._rendezvous.close(wait=False)

    def model_to_device(self) -> None:
        """Bring the module to the device."""
        _known("model", self.model).to(self.root_device)

    def barrier(self, name: str | None = None) -> None:
        """Nobody waits."""

    def broadcast(self, obj: T, src: int = 0) -> T:
        """Each process has its own."""
        return obj

    def reduce(self, tensor: Tensor | Any, *args: Any, **kwargs: Any) -> Tensor | Any:
        """Each process has its own."""
        return tensor

    def all_gather(self, tensor: Tensor, group: Any | None = None, sync_grads: bool = False) -> Tensor:
        """Each process has its own."""
        return tensor

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Each process decides for itself."""
        return decision

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Every process saves its own problems."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)


def _known(name: str, value: T | None) -> T:
    """What Lightning sets before it calls a strategy."""
    if value is None:
        raise RuntimeError(f"problem_parallel needs {name}, which the Trainer sets before it starts")
    return value


StrategyRegistry.register(
    ProblemParallelStrategy.strategy_name,
    ProblemParallelStrategy,
    description="Whole batches of problems dealt to processes, without a process group",
)
