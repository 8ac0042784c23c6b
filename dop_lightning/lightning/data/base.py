"""From sources × noises × seeds to problems, and from problems to batches, for a Trainer."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.foundation.names import free_name, safe_name
from dop_lightning.foundation.parsing import parse_once
from dop_lightning.foundation.signatures import require_part
from dop_lightning.foundation.units import parse_bytes
from dop_lightning.images.tiles import Mosaic
from dop_lightning.lightning.hyperparameters import PlainHyperparameters
from dop_lightning.problems.deferred import as_at_setup, defer
from dop_lightning.problems.noise import Noise, NoNoise
from dop_lightning.problems.problem import Attribute, Problem, ProblemBatch, Sensing, form_batches, rename
from dop_lightning.problems.randomness import stream


class Source(ABC):
    """Where clean signals, or observations that are corrupted already, come from.

    Attributes:
        name: short, names problems and files.
        data_range: width of the range of the signals, ``None`` where there is none.
        is_stopped: asked by a long :meth:`write`, which raises
            :class:`~dop_lightning.matrices.scenes.layers.WritingStopped` where it is true.
    """

    name: str
    data_range: float | None = None
    is_stopped: Callable[[], bool] = staticmethod(lambda: False)

    @abstractmethod
    def signal(self, seed: int) -> Tensor:
        """The signal of a seed, ``(*n)``; clean, or corrupted where no noise is added."""

    @property
    def attributes(self) -> dict[str, Attribute]:
        """Axes of a table."""
        return {}

    @property
    def is_clean(self) -> bool:
        """Whether :meth:`signal` is the truth also where no noise is added (synthetic signals)."""
        return False

    def truth(self, signal_shape: Sequence[int] = ()) -> Tensor | None:
        """The truth of a corrupted file, where it is known.

        Args:
            signal_shape: ``(*n)``, where that need not be the shape of the file, which holds what was measured.
        """
        return None

    def mask(self) -> Tensor | None:
        """The observed entries of a file, ``None`` for all."""
        return None

    def release(self) -> object:
        """Let go of what was read of a file, and return it: it is used again as long as somebody else holds it."""
        return None

    def write(self, folder: Path, outcome: Outcome) -> bool:
        """Write what was recovered in a way of its own.

        Args:
            folder: of the problem.
            outcome: of a problem of this source.

        Returns:
            Whether that takes the place of arrays and pictures.
        """
        return False

    def problem(self, noise: Noise, seed: int, sensing: Sensing | None = None) -> Problem:
        """The problem of one noise and one seed, named by all three.

        Args:
            noise: what is done to the signal, or to what was measured of it.
            seed: of the random streams.
            sensing: how the signal is measured, if not as it is. Where no noise is added, a file holds what was
                measured already.

        Raises:
            ValueError: a signal that is not known everywhere is to be measured, or it cannot be measured in this way.
        """
        parts = [self.name, *([] if isinstance(noise, NoNoise) else [noise.slug]), f"seed{seed}"]
        attributes = {**self.attributes, **({} if sensing is None else sensing.attributes)}
        if sensing is not None:
            parts.insert(1, sensing.slug)
        if not isinstance(noise, NoNoise):
            attributes |= noise.attributes
        made = self.is_clean or not isinstance(noise, NoNoise)
        tensors = self._corrupted(noise, seed, sensing) if made else self._found(seed, sensing)
        return Problem(
            name=safe_name("-".join(parts)),
            seed=seed,
            data_range=self.data_range,
            attributes=attributes,
            source=self,
            sensing=sensing,
            **tensors,
        )

    def _measured(self, signal: Tensor, seed: int, sensing: Sensing | None) -> Tensor:
        """What the noise comes to; where it cannot be had, the error names the source."""
        try:
            return signal if sensing is None else sensing.measure(signal, seed)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def _corrupted(self, noise: Noise, seed: int, sensing: Sensing | None) -> dict[str, Any]:
        """The tensors of a problem whose truth is the signal: it is measured, then corrupted."""
        signal, missing = self.signal(seed), self.mask()
        if sensing is not None and missing is not None:
            raise ValueError(
                f"{self.name}: a signal must be known everywhere to be measured, got {int((~missing).sum())} missing "
                "entries (for missing measurements there is the noise MissingEntries)"
            )
        corrupted = noise.corrupt(self._measured(signal, seed, sensing), stream(seed, "corruption"))
        mask, true_corruption = corrupted.mask, corrupted.corruption
        if missing is not None:
            mask = missing if mask is None else missing & mask
            true_corruption = true_corruption * missing
        return {
            "observation": corrupted.observation,
            "truth": signal if missing is None else None,  # a file with gaps is no truth
            "true_corruption": true_corruption,
            "mask": None if mask is None or mask.all() else mask,
            "signal_shape": tuple(signal.shape),
        }

    def _found(self, seed: int, sensing: Sensing | None) -> dict[str, Any]:
        """The tensors of a problem whose observation is the file."""
        observation, mask = self.signal(seed), self.mask()
        shape = tuple(observation.shape)
        if sensing is not None:
            try:
                shape = sensing.signal_shape(shape)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error
        truth, true_corruption = self.truth(shape), None
        if truth is not None:
            true_corruption = observation - self._measured(truth, seed, sensing)
            true_corruption = true_corruption if mask is None else true_corruption * mask
        return {
            "observation": observation,
            "truth": truth,
            "true_corruption": true_corruption,
            "mask": None if mask is None or mask.all() else mask,
            "signal_shape": shape,
        }


def one_file_each(
    argument: str, files: Sequence[Path], given: str | list[str] | None, find: Callable[[str], list[Path]]
) -> list[Path | None]:
    """The truth (or the mask) of each file: none, the same for all, or one each in the same order.

    Args:
        argument: its name, for errors.
        files: the files.
        given: patterns, found one by one since the same file may belong to several.
        find: lists the files of a pattern.

    Raises:
        ValueError: there is another number of them.
    """
    entries = [] if given is None else [given] if isinstance(given, str) else given
    found = [path for entry in entries for path in find(entry)]
    if len(found) in (0, 1):
        return [found[0] if found else None] * len(files)
    if len(found) != len(files):
        raise ValueError(f"{argument} must be one file for all, or one each for {len(files)}, got {len(found)}")
    return list(found)


def data_of(trainer: pl.Trainer) -> "RecoveryDataModule":
    """Return the data module that a trainer works on, for callbacks.

    Raises:
        TypeError: it is none of ours.
    """
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, RecoveryDataModule):
        raise TypeError(f"datamodule must be a RecoveryDataModule, got {type(data).__name__}")
    return data


@dataclass(frozen=True, slots=True)
class _Reread:
    """Makes a problem anew."""

    source: Source
    noise: Noise
    seed: int
    sensing: Sensing | None

    def __call__(self) -> tuple[Problem, object]:
        return self.source.problem(self.noise, self.seed, self.sensing), self.source.release()


class Blocks:
    """An endless loader: the training step knows by itself which block comes next.

    A plain iterable rather than a DataLoader, whose iterators draw random numbers when they are made.
    """

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class RecoveryDataModule(PlainHyperparameters, pl.LightningDataModule, ABC):
    """Problems for :class:`~dop_lightning.lightning.module.DoubleOverparameterization`: sources × noises × seeds.

    The arguments of ``__init__``, those of subclasses included, are saved as hyperparameters.

    Attributes:
        wholes: what is to be recovered, a row of the table each.
        mosaics: those of them that are recovered in tiles, by name.
        problems: what the engine works on: the wholes, or their tiles.
        batches: the problems, those of one shape together; none yet with the batch size ``auto``, for which the method
            must be known, see :meth:`~dop_lightning.lightning.module.DoubleOverparameterization.configure_model`.
        plan: the batches of a run that was started before, as names; they are kept if it is resumed, and new problems
            form batches of their own.

    Args:
        noise: what is done to each signal, one or several; ``None`` adds nothing: the files are corrupted already.
        seeds: seeds of the random streams, or how many: 3 stands for 0, 1, 2.
        batch_size: problems in a batch, at most; ``None`` puts all problems of one shape together; ``auto`` takes as
            many as memory allows, and as there are for each process.
        sensing: how each signal is measured, in one or several ways; ``None`` observes the signal itself.
        max_memory: what a batch may take with ``auto``, such as ``8G``; by default three fifths of what is free.

    Raises:
        ValueError: an argument is out of range.
    """

    growing: ClassVar[frozenset[str]] = frozenset({"noise", "seeds", "sensing", "batch_size", "max_memory"})
    """Arguments that may change when a run is started again in its folder, as long as it keeps its problems: those that
    list problems or say where files are. The settings of a run must agree in all others."""

    defers: ClassVar[bool] = False
    """Whether the tensors of problems are read again when they are needed, if there are several problems."""

    def __init__(
        self,
        noise: Noise | list[Noise] | None = None,
        seeds: int | list[int] = 1,
        batch_size: int | Literal["auto"] | None = None,
        sensing: Sensing | list[Sensing] | None = None,
        max_memory: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["problems"])  # tensors, and saved in checkpoints as what they are
        self.noises: list[Noise] = noise if isinstance(noise, list) else [noise or NoNoise()]
        if not self.noises:
            raise ValueError("noise must be at least one noise, or null, got an empty list")
        self.seeds = list(range(at_least("seeds", seeds, 1))) if isinstance(seeds, int) else list(seeds)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different integers, at least one, got {self.seeds}")
        self.batch_size: int | Literal["auto"] | None = batch_size
        if isinstance(batch_size, str):
            one_of("batch_size", batch_size, ["auto"])
        elif batch_size is not None:
            at_least("batch_size", batch_size, 1)
        self.max_memory = None if max_memory is None else parse_bytes(max_memory, "max_memory")
        if max_memory is not None and batch_size != "auto":
            raise ValueError(f"max_memory must go with the batch_size auto, got {max_memory!r} with {batch_size}")
        self.sensings: Sequence[Sensing | None] = sensing if isinstance(sensing, list) else [sensing]
        if not self.sensings:
            raise ValueError("sensing must be at least one way to measure, or null, got an empty list")
        for added in self.noises:
            require_part("noise", added, Noise)
        for measured_by in self.sensings:
            if measured_by is not None:
                require_part("sensing", measured_by, Sensing)
        self.wholes: list[Problem] = []
        self.mosaics: dict[str, Mosaic] = {}
        self.problems: list[Problem] = []
        self.batches: list[ProblemBatch] = []
        self._unnamed: list[Problem] = []
        self.plan: list[list[str]] | None = None

    @abstractmethod
    def sources(self) -> Sequence[Source]:
        """The sources, in order."""

    def variants(self, problem: Problem) -> list[Problem]:
        """The problem as often as it is to be recovered, in different ways; by default once."""
        return [problem]

    def cut(self, problem: Problem) -> Mosaic | None:
        """The tiles of a problem that is too large to be recovered at once; ``None`` to take it whole."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """List all problems and form the batches, the same on every rank; once."""
        if self.problems:
            return
        sources = self.sources()
        if not sources:
            raise ValueError(f"{type(self).__name__} must have at least one signal to recover, got an empty list")
        plain = len(self.seeds) == 1 and all(isinstance(noise, NoNoise) for noise in self.noises)
        ways = list(itertools.product(self.sensings, self.noises, self.seeds))
        defers = self.defers and len(sources) * len(ways) > 1
        problems: list[Problem] = []
        with nullcontext() if defers else parse_once():  # several problems may share a file, such as a truth
            for source in sources:
                with parse_once():
                    problems += self._problems_of(source, ways, plain, defers)
        self._unnamed = problems
        self._name({})

    def _problems_of(
        self, source: Source, ways: Sequence[tuple[Sensing | None, Noise, int]], plain: bool, defers: bool
    ) -> list[Problem]:
        """Return the problems of one source; deferred ones share what was read of its file, and then let go of it."""
        problems: list[Problem] = []
        _held: object = None  # what was read, until the next one of the same file has been made
        for sensing, noise, seed in ways:
            with as_at_setup() if defers else nullcontext():
                problem = source.problem(noise, seed, sensing)
            only = sensing is None or (len(self.sensings) == 1 and not source.is_clean)
            if plain and only:  # one recovery of each file: it is named like the file
                problem = rename(problem, safe_name(source.name))
            if defers:
                problem, _held = defer(problem, _Reread(source, noise, seed, sensing), source.release())
            problems += self.variants(problem)
        return problems

    def keep_names(self, names: Mapping[int, tuple[str, Sequence[str]]]) -> None:
        """Give problems the names that they have in a run that was started before; the others get names that are free.

        Args:
            names: by position in ``wholes``, the name of a whole and those of its tiles, if any.
        """
        tiles = {whole.name: [t.name for t in mosaic.tiles.values()] for whole, mosaic in self._cut_wholes()}
        now = {place: (whole.name, tiles.get(whole.name, [])) for place, whole in enumerate(self.wholes)}
        if any(now[place] != (name, list(of_tiles)) for place, (name, of_tiles) in names.items()):
            self._name(names)

    def _cut_wholes(self) -> Iterator[tuple[Problem, Mosaic]]:
        return ((whole, self.mosaics[whole.name]) for whole in self.wholes if whole.name in self.mosaics)

    def _name(self, kept: Mapping[int, tuple[str, Sequence[str]]]) -> None:
        """Name all wholes and tiles, each differently, and form the batches."""
        taken = {name.casefold() for whole, tiles in kept.values() for name in (whole, *tiles)}
        self.wholes = []
        for place, problem in enumerate(self._unnamed):
            name = kept[place][0] if place in kept else free_name(problem.name, taken)
            taken.add(name.casefold())
            self.wholes.append(rename(problem, name))
        self.mosaics = {whole.name: mosaic for whole in self.wholes if (mosaic := self.cut(whole)) is not None}
        of_run = {kept[place][0]: kept[place][1] for place in kept}
        for whole, mosaic in self._cut_wholes():
            names = iter(of_run.get(whole.name, ()))
            for corner, tile in mosaic.tiles.items():  # a file may have the name of another one's tile
                name = next(names, None) or free_name(tile.name, taken)
                mosaic.tiles[corner] = tile.renamed(name, tile.folder)
                taken.add(name.casefold())
        self.problems = []
        for whole in self.wholes:
            self.problems += self.mosaics[whole.name].tiles.values() if whole.name in self.mosaics else [whole]
        if self.batch_size != "auto":
            self.batches = form_batches(self.problems, self.batch_size)

    def group(self, names: Sequence[Sequence[str]]) -> None:
        """Form the batches that a plan tells.

        Args:
            names: of the problems, batch by batch.

        Raises:
            ValueError: they are not the names of these problems.
        """
        if [batch.names for batch in self.batches] == [list(batch) for batch in names]:
            return
        problems = {problem.name: problem for problem in self.problems}
        told = [name for batch in names for name in batch]
        if sorted(told) != sorted(problems):
            odd = sorted(set(told) ^ set(problems)) or sorted({name for name in told if told.count(name) > 1})
            raise ValueError(f"the batches of a run must hold each of its problems once, got others in {odd[:3]}")
        self.batches = [ProblemBatch([problems[name] for name in batch]) for batch in names]

    def train_dataloader(self) -> Blocks:
        """Block after block, without end."""
        return Blocks()

    def val_dataloader(self) -> list[str]:
        """The names of the wholes."""
        return [whole.name for whole in self.wholes]

    def test_dataloader(self) -> list[str]:
        """The names of the wholes."""
        return [whole.name for whole in self.wholes]

    def predict_dataloader(self) -> list[str]:
        """The names of the wholes."""
        return [whole.name for whole in self.wholes]
