"""The curves of every problem in ``metrics.csv``, and the best that was seen on the way."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.look import Look
from dop_lightning.engine.outcome import Record
from dop_lightning.foundation.atomic import append_text, atomic_text, make_folder
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.runs.curves import (
    CURVES,
    append_lines,
    curve_files,
    merge_curves,
    read_lines,
    seal_lines,
    whole_lines,
)
from dop_lightning.runs.folder import METRICS

COLUMNS = 4
"""Problem, iteration, tag, value."""


class RecoveryMetrics(RecoveryCallback):
    """Appends the scores of each evaluation to a file a batch and keeps the best of each problem.

    ``RUN/metrics.csv`` is put together out of these files, see :mod:`dop_lightning.runs.curves`: several processes
    may be at work, each with batches of its own. They do it at each checkpoint and at their end.

    The best is an oracle's: to stop there one would have to know the truth. It is reported beside the end of the run,
    never instead of it.
    """

    def __init__(self) -> None:
        self._best: dict[str, dict[str, float]] = {}

    def best(self, name: str, iteration: int, scores: Mapping[str, float]) -> dict[str, float]:
        """``best_psnr`` (where there is one) and ``best_iteration`` (of the best PSNR, else of the least error).

        Args:
            name: of the problem.
            iteration: its end, which counts as well: an interruption may have come between two evaluations.
            scores: at its end.
        """
        known = [best for best in (self._best.get(name), _seen(iteration, scores)) if best]
        best = max(known, key=_merit, default={})
        return {key: best[key] for key in ("best_psnr", "best_iteration") if key in best}

    @staticmethod
    def append(trainer: pl.Trainer, module: DoubleOverparameterization, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows (problem, iteration, tag, value) of one batch; a single process keeps ``metrics.csv`` true."""
        run, text = Path(trainer.default_root_dir), _lines(rows)
        label = module.roster.label_of(rows[0][0])
        append_lines(run / CURVES / f"{label}.csv", text)
        if trainer.world_size == 1:
            append_text(run / METRICS, text)

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin the files, or cut those of a resumed run back to the iterations of the checkpoint."""
        module = recovery_module(module)
        run = Path(trainer.default_root_dir)
        make_folder(run / CURVES)
        own = {label: run / CURVES / f"{label}.csv" for label in module.roster.labels}
        # alone, also what was written when the problems were batched in another way
        read = curve_files(run) if trainer.world_size == 1 else [path for path in own.values() if path.is_file()]
        found = {path: read_lines(path) for path in read}
        kept: dict[str, list[list[str]]] = {label: [] for label in own}
        for lines in found.values():
            for row in csv.reader(io.StringIO(lines.text)):
                if _is_past(row, module.records):
                    kept[module.roster.label_of(row[0])].append(row)
        damaged = {path.stem for path, lines in found.items() if lines.damaged}
        for label, path in own.items():
            if label in damaged or not _is_complete(kept[label], label, module):
                kept[label] = _repaired(run, path, kept[label], module)
            text = seal_lines(_lines(kept[label]))
            if not path.is_file() or text.encode() != path.read_bytes():
                atomic_text(path, text)
        for path in set(found) - set(own.values()):
            path.unlink()
        merge_curves(run)

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, look: Look) -> None:
        """Append a row a problem and tag."""
        rows = []
        for name, of_problem in zip(look.problems.names, look.scores, strict=True):
            seen = _seen(look.iteration, of_problem)
            # an odd last evaluation is not remembered: a longer run would not have it
            if seen and look.iteration % module.evaluate_every == 0:
                self._best[name] = max(self._best.get(name, seen), seen, key=_merit)  # the first of equals
            rows += [[name, look.iteration, tag, f"{value:.7g}"] for tag, value in of_problem.items()]
        self.append(trainer, module, rows)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Bring the curves of all up to date."""
        merge_curves(Path(trainer.default_root_dir))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same at the end."""
        merge_curves(Path(trainer.default_root_dir))

    def problem_state(self, name: str) -> dict[str, Any]:
        """The best of one problem."""
        return dict(self._best.get(name, {}))

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """The best of one problem."""
        if state:
            self._best[name] = dict(state)


def _is_past(row: Sequence[str], records: Mapping[str, Record]) -> bool:
    """Whether a row is of an iteration that a problem has behind it."""
    record = records.get(row[0]) if len(row) == COLUMNS and row[1].isdigit() else None
    # a problem that went back to an earlier iteration keeps its curve up to where it stopped
    return record is not None and int(row[1]) <= max(record.iteration, record.evaluated)


def _is_complete(rows: Sequence[Sequence[str]], label: str, module: DoubleOverparameterization) -> bool:
    """Whether there is a row of the last evaluation of each problem of a batch."""
    there = {(row[0], int(row[1])) for row in rows}
    own = {name: record for name, record in module.records.items() if module.roster.label_of(name) == label}
    return all((name, record.evaluated) in there for name, record in own.items() if record.evaluated > 0)


def _repaired(run: Path, path: Path, rows: list[list[str]], module: DoubleOverparameterization) -> list[list[str]]:
    """Complete the rows of a damaged file by those of ``metrics.csv``, in their order there."""
    text = (run / METRICS).read_text("utf-8", "replace") if (run / METRICS).is_file() else ""
    copies = [row for row in csv.reader(io.StringIO(whole_lines(text))) if _is_past(row, module.records)]
    copies = [row for row in copies if module.roster.label_of(row[0]) == path.stem]
    own = {tuple(row[:3]): row for row in rows}
    named = {tuple(row[:3]) for row in copies}
    # what is whole in the file itself counts
    both = [own.get(tuple(row[:3]), row) for row in copies] + [row for row in rows if tuple(row[:3]) not in named]
    both.sort(key=lambda row: int(row[1]))
    is_whole = _is_complete(both, path.stem, module)
    lost = f"{METRICS} does not have all of it: a part of the curves is lost"
    then = f"repaired from {METRICS}" if is_whole else lost
    print(f"{path}: damaged or cut: {then}", file=sys.stderr)
    return both


def _seen(iteration: int, scores: Mapping[str, float]) -> dict[str, float]:
    if "psnr" in scores:
        return {"best_psnr": scores["psnr"], "best_iteration": iteration}
    if "relative_error" in scores:
        return {"least_error": -scores["relative_error"], "best_iteration": iteration}
    return {}


def _merit(best: Mapping[str, float]) -> float:
    return best["best_psnr"] if "best_psnr" in best else best["least_error"]


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
