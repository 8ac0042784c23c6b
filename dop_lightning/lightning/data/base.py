"""Create problems from sources × noises × seeds, and batches from problems, for a Trainer."""

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
    """Source of clean signals, or of observations that are already corrupted.

    Attributes:
        name: short name, which becomes part of the names of problems and files.
        data_range: width of the value range of the signals; ``None`` if they have none.
        is_stopped: called by a long :meth:`write`, which raises
            :class:`~dop_lightning.matrices.scenes.layers.WritingStopped` if it returns true.
    """

    name: str
    data_range: float | None = None
    is_stopped: Callable[[], bool] = staticmethod(lambda: False)

    @abstractmethod
    def signal(self, seed: int) -> Tensor:
        """Return the signal of a seed, ``(*n)``: clean, or already corrupted if no noise is added."""

    @property
    def attributes(self) -> dict[str, Attribute]:
        """Attributes of the problems, which become columns of tables."""
        return {}

    @property
    def is_clean(self) -> bool:
        """Whether :meth:`signal` is the truth even if no noise is added, as for synthetic signals."""
        return False

    def truth(self, signal_shape: Sequence[int] = ()) -> Tensor | None:
        """Return the truth of a corrupted file; ``None`` if it is unknown.

        Args:
            signal_shape: ``(*n)``, if it may differ from the shape of the file, which contains the measurements.
        """
        return None

    def mask(self) -> Tensor | None:
        """Return the mask of the observed entries of a file; ``None`` if all are observed."""
        return None

    def release(self) -> object:
        """Drop the data read from a file, and return it. The source reuses the data while the caller holds it."""
        return None

    def write(self, folder: Path, outcome: Outcome) -> bool:
        """Write the outcome in a source-specific format.

        Args:
            folder: folder of the problem.
            outcome: outcome of a problem of this source.

        Returns:
            Whether this replaces the usual arrays and pictures.
        """
        return False

    def problem(self, noise: Noise, seed: int, sensing: Sensing | None = None) -> Problem:
        """Create the problem of one noise and one seed, named after source, noise and seed.

        Args:
            noise: noise added to the signal, or to its measurements.
            seed: seed of the random streams.
            sensing: how the signal is measured; by default it is observed directly. If no noise is added, files contain
                the measurements.

        Raises:
            ValueError: a signal with missing entries is to be measured, or the signal cannot be measured in this way.
        """
        parts = [self.name, *([] if isinstance(noise, NoNoise) else [noise.slug]), f"seed{seed}"]
        attributes = {**self.attributes, **({} if sensing is None else sensing.attributes)}
        if sensing is not None:
            parts.insert(1, sensing.slug)
        if not isinstance(noise, NoNoise):
            attributes |= noise.attributes
        made = self.is_clean or not isinstance(noise, NoNoise)
        tensors = self._corrupted_tensors(noise, seed, sensing) if made else self._observed_tensors(seed, sensing)
        return Problem(
            name=safe_name("-".join(parts)),
            seed=seed,
            data_range=self.data_range,
            attributes=attributes,
            source=self,
            sensing=sensing,
            **tensors,
        )

    def _measure(self, signal: Tensor, seed: int, sensing: Sensing | None) -> Tensor:
        """Return the signal or its measurements, to which noise is added. Errors name the source."""
        try:
            return signal if sensing is None else sensing.measure(signal, seed)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def _corrupted_tensors(self, noise: Noise, seed: int, sensing: Sensing | None) -> dict[str, Any]:
        """Return the tensors of a problem whose truth is the signal, which is measured and then corrupted."""
        signal, missing = self.signal(seed), self.mask()
        if sensing is not None and missing is not None:
            raise ValueError(
                f"{self.name}: a signal must be complete to be measured, got {int((~missing).sum())} missing entries "
                "(use the noise MissingEntries for missing measurements)"
            )
        corrupted = noise.corrupt(self._measure(signal, seed, sensing), stream(seed, "corruption"))
        mask, true_corruption = corrupted.mask, corrupted.corruption
        if missing is not None:
            mask = missing if mask is None else missing & mask
            true_corruption = true_corruption * missing
        return {
            "observation": corrupted.observation,
            "truth": signal if missing is None else None,  # a file with gaps cannot be the truth
            "true_corruption": true_corruption,
            "mask": None if mask is None or mask.all() else mask,
            "signal_shape": tuple(signal.shape),
        }

    def _observed_tensors(self, seed: int, sensing: Sensing | None) -> dict[str, Any]:
        """Return the tensors of a problem whose observation is the file."""
        observation, mask = self.signal(seed), self.mask()
        shape = tuple(observation.shape)
        if sensing is not None:
            try:
                shape = sensing.signal_shape(shape)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error
        truth, true_corruption = self.truth(shape), None
        if truth is not None:
            true_corruption = observation - self._measure(truth, seed, sensing)
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
    """Return the truth (or the mask) of each file: none, the same file for all, or one per file in the same order.

    Args:
        argument: name of the argument, for errors.
        files: the files.
        given: patterns, which are searched separately, since the same file may belong to several files.
        find: returns the files that match a pattern.

    Raises:
        ValueError: the number of files found is neither 0, 1 nor the number of files.
    """
    entries = [] if given is None else [given] if isinstance(given, str) else given
    found = [path for entry in entries for path in find(entry)]
    if len(found) in (0, 1):
        return [found[0] if found else None] * len(files)
    if len(found) != len(files):
        raise ValueError(f"{argument} must be one file for all, or one per file ({len(files)}), got {len(found)}")
    return list(found)


def data_of(trainer: pl.Trainer) -> "RecoveryDataModule":
    """Return the data module of a trainer, for callbacks.

    Raises:
        TypeError: it is not a :class:`RecoveryDataModule`.
    """
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, RecoveryDataModule):
        raise TypeError(f"datamodule must be a RecoveryDataModule, got {type(data).__name__}")
    return data


@dataclass(frozen=True, slots=True)
class _Reread:
    """Create a problem again."""

    source: Source
    noise: Noise
    seed: int
    sensing: Sensing | None

    def __call__(self) -> tuple[Problem, object]:
        return self.source.problem(self.noise, self.seed, self.sensing), self.source.release()


class Blocks:
    """Endless loader of block numbers. The training step itself determines the next block.

    This is a plain iterable, because iterators of a DataLoader draw random numbers when they are created.
    """

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class RecoveryDataModule(PlainHyperparameters, pl.LightningDataModule, ABC):
    """Problems for :class:`~dop_lightning.lightning.module.DoubleOverparameterization`: sources × noises × seeds.

    The arguments of ``__init__``, including those of subclasses, are saved as hyperparameters.

    Attributes:
        wholes: whole problems, one per row of the table.
        mosaics: tiles of the problems that are recovered in tiles, by name.
        problems: problems that the engine recovers: the whole problems, or their tiles.
        batches: the problems, grouped by shape. Empty at first with the batch size ``auto``, which requires the method,
            see :meth:`~dop_lightning.lightning.module.DoubleOverparameterization.configure_model`.
        plan: names of the problems in the batches of an earlier start. They are kept if the run is resumed; new
            problems form new batches.

    Args:
        noise: one or several noises added to each signal; ``None`` adds none, for files that are already corrupted.
        seeds: seeds of the random streams, or their number: 3 means 0, 1, 2.
        batch_size: maximum number of problems in a batch; ``None`` combines all problems of one shape; ``auto`` forms
            batches as large as memory allows, and enough batches for all processes.
        sensing: one or several ways to measure each signal; ``None`` observes the signal itself.
        max_memory: maximum memory of a batch with ``auto``, such as ``8G``; by default three fifths of the available
            memory.

    Raises:
        ValueError: an argument is out of range.
    """

    growing: ClassVar[frozenset[str]] = frozenset({"noise", "seeds", "sensing", "batch_size", "max_memory"})
    """Arguments that may change when a run is started again in its folder, provided that its problems are kept: those
    that list problems or the locations of files. All other settings of the run must agree."""

    defers: ClassVar[bool] = False
    """Whether to release the tensors of problems and read them again when needed, if there are several problems."""

    def __init__(
        self,
        noise: Noise | list[Noise] | None = None,
        seeds: int | list[int] = 1,
        batch_size: int | Literal["auto"] | None = None,
        sensing: Sensing | list[Sensing] | None = None,
        max_memory: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["problems"])  # problems are tensors, which checkpoints store separately
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
            raise ValueError(f"max_memory requires batch_size auto, got {max_memory!r} with batch_size {batch_size}")
        self.sensings: Sequence[Sensing | None] = sensing if isinstance(sensing, list) else [sensing]
        if not self.sensings:
            raise ValueError("sensing must be at least one sensing, or null, got an empty list")
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
        """Return the sources, in order."""

    def variants(self, problem: Problem) -> list[Problem]:
        """Return the variants of a problem to recover; by default only the problem itself."""
        return [problem]

    def cut(self, problem: Problem) -> Mosaic | None:
        """Return the tiles of a problem that is too large to be recovered at once; ``None`` for no tiles."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """List all problems and form the batches, identically on every rank. Later calls have no effect."""
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
        self._assign_names({})

    def _problems_of(
        self, source: Source, ways: Sequence[tuple[Sensing | None, Noise, int]], plain: bool, defers: bool
    ) -> list[Problem]:
        """Return the problems of one source. Deferred problems share the data read from its file, then release it."""
        problems: list[Problem] = []
        _held: object = None  # the data, until the next problem of the same file has been created
        for sensing, noise, seed in ways:
            with as_at_setup() if defers else nullcontext():
                problem = source.problem(noise, seed, sensing)
            only = sensing is None or (len(self.sensings) == 1 and not source.is_clean)
            if plain and only:  # the file is recovered only once, so the problem is named after it
                problem = rename(problem, safe_name(source.name))
            if defers:
                problem, _held = defer(problem, _Reread(source, noise, seed, sensing), source.release())
            problems += self.variants(problem)
        return problems

    def keep_names(self, names: Mapping[int, tuple[str, Sequence[str]]]) -> None:
        """Rename problems as in an earlier start of the run; the others get unused names.

        Args:
            names: names of a whole problem and of its tiles, if any, by position in ``wholes``.
        """
        tiles = {whole.name: [t.name for t in mosaic.tiles.values()] for whole, mosaic in self._cut_wholes()}
        now = {place: (whole.name, tiles.get(whole.name, [])) for place, whole in enumerate(self.wholes)}
        if any(now[place] != (name, list(of_tiles)) for place, (name, of_tiles) in names.items()):
            self._assign_names(names)

    def _cut_wholes(self) -> Iterator[tuple[Problem, Mosaic]]:
        return ((whole, self.mosaics[whole.name]) for whole in self.wholes if whole.name in self.mosaics)

    def _assign_names(self, kept: Mapping[int, tuple[str, Sequence[str]]]) -> None:
        """Give all whole problems and tiles unique names, and form the batches."""
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
            for corner, tile in mosaic.tiles.items():  # a file may have the same name as a tile of another file
                name = next(names, None) or free_name(tile.name, taken)
                mosaic.tiles[corner] = tile.renamed(name, tile.folder)
                taken.add(name.casefold())
        self.problems = []
        for whole in self.wholes:
            self.problems += self.mosaics[whole.name].tiles.values() if whole.name in self.mosaics else [whole]
        if self.batch_size != "auto":
            self.batches = form_batches(self.problems, self.batch_size)

    def group(self, names: Sequence[Sequence[str]]) -> None:
        """Form the batches of a plan.

        Args:
            names: names of the problems of each batch.

        Raises:
            ValueError: the batches do not contain each problem once.
        """
        if [batch.names for batch in self.batches] == [list(batch) for batch in names]:
            return
        problems = {problem.name: problem for problem in self.problems}
        given = [name for batch in names for name in batch]
        if sorted(given) != sorted(problems):
            odd = sorted(set(given) ^ set(problems)) or sorted({name for name in given if given.count(name) > 1})
            raise ValueError(f"the batches of a run must contain each of its problems once, got mismatches {odd[:3]}")
        self.batches = [ProblemBatch([problems[name] for name in batch]) for batch in names]

    def train_dataloader(self) -> Blocks:
        """Return an endless loader of block numbers."""
        return Blocks()

    def val_dataloader(self) -> list[str]:
        """Return the names of the whole problems."""
        return [whole.name for whole in self.wholes]

    def test_dataloader(self) -> list[str]:
        """Return the names of the whole problems."""
        return [whole.name for whole in self.wholes]

    def predict_dataloader(self) -> list[str]:
        """Return the names of the whole problems."""
        return [whole.name for whole in self.wholes]
