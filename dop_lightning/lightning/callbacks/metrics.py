"""Write the curves of every problem to ``metrics.csv``, and record their best scores."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.outcome import Record
from dop_lightning.foundation.atomic import append_text, atomic_text, make_folder
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.runs.curves import (
    CURVES,
    add_line_checksums,
    append_lines,
    complete_lines,
    curve_files,
    merge_curves,
    read_lines,
)
from dop_lightning.runs.folder import METRICS

COLUMNS = 4
"""Number of columns: problem, iteration, tag, value."""


class RecoveryMetrics(RecoveryCallback):
    """Append the scores of each evaluation to one file per batch, and record the best scores of each problem.

    ``RUN/metrics.csv`` is merged from these files, see :mod:`dop_lightning.runs.curves`, since several processes may be
    running, each with different batches. Each process merges them at its checkpoints and at its end.

    The best scores are oracle scores: stopping there would require the truth. They are reported in addition to the
    final scores, never instead of them.
    """

    def __init__(self) -> None:
        self._best: dict[str, dict[str, float]] = {}

    def best(self, name: str, iteration: int, scores: Mapping[str, float]) -> dict[str, float]:
        """Return ``best_psnr``, if known, and ``best_iteration``: that of the highest PSNR, or else of the least error.

        Args:
            name: name of the problem.
            iteration: last iteration, which is included, since a run may be interrupted between two evaluations.
            scores: scores at this iteration.
        """
        known = [best for best in (self._best.get(name), _best_scores(iteration, scores)) if best]
        best = max(known, key=_merit, default={})
        return {key: best[key] for key in ("best_psnr", "best_iteration") if key in best}

    @staticmethod
    def append(trainer: pl.Trainer, module: DoubleOverparameterization, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows (problem, iteration, tag, value) of one batch. A single process also updates ``metrics.csv``."""
        run, text = Path(trainer.default_root_dir), _format_rows(rows)
        label = module.roster.label_of(rows[0][0])
        append_lines(run / CURVES / f"{label}.csv", text)
        if trainer.world_size == 1:
            append_text(run / METRICS, text)

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Create the files, or truncate those of a resumed run to the iterations of the checkpoint."""
        module = recovery_module(module)
        run = Path(trainer.default_root_dir)
        make_folder(run / CURVES)
        own = {label: run / CURVES / f"{label}.csv" for label in module.roster.labels}
        # a single process also reads files written with other batches
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
                kept[label] = _repair_rows(run, path, kept[label], module)
            text = add_line_checksums(_format_rows(kept[label]))
            if not path.is_file() or text.encode() != path.read_bytes():
                atomic_text(path, text)
        for path in set(found) - set(own.values()):
            path.unlink()
        merge_curves(run)

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        """Append one row per problem and tag."""
        rows = []
        for name, of_problem in zip(batch.problems.names, batch.scores, strict=True):
            seen = _best_scores(batch.iteration, of_problem)
            # a final evaluation between regular ones is ignored, since a longer run would not have it
            if seen and batch.iteration % module.evaluate_every == 0:
                self._best[name] = max(self._best.get(name, seen), seen, key=_merit)  # the first of equals
            rows += [[name, batch.iteration, tag, f"{value:.7g}"] for tag, value in of_problem.items()]
        self.append(trainer, module, rows)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Update the merged curves."""
        merge_curves(Path(trainer.default_root_dir))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Merge the curves at the end."""
        merge_curves(Path(trainer.default_root_dir))

    def problem_state(self, name: str) -> dict[str, Any]:
        """Return the best scores of a problem."""
        return dict(self._best.get(name, {}))

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Load the best scores of a problem."""
        if state:
            self._best[name] = dict(state)


def _is_past(row: Sequence[str], records: Mapping[str, Record]) -> bool:
    """Return whether a row is of an iteration that a problem has completed."""
    record = records.get(row[0]) if len(row) == COLUMNS and row[1].isdigit() else None
    # a problem that went back to an earlier iteration keeps its curve up to the later one
    return record is not None and int(row[1]) <= max(record.iteration, record.evaluated)


def _is_complete(rows: Sequence[Sequence[str]], label: str, module: DoubleOverparameterization) -> bool:
    """Return whether there is a row for the last evaluation of each problem of a batch."""
    present = {(row[0], int(row[1])) for row in rows}
    own = {name: record for name, record in module.records.items() if module.roster.label_of(name) == label}
    return all((name, record.evaluated) in present for name, record in own.items() if record.evaluated > 0)


def _repair_rows(run: Path, path: Path, rows: list[list[str]], module: DoubleOverparameterization) -> list[list[str]]:
    """Complete the rows of a damaged file by those of ``metrics.csv``, in the order of ``metrics.csv``."""
    text = (run / METRICS).read_text("utf-8", "replace") if (run / METRICS).is_file() else ""
    copies = [row for row in csv.reader(io.StringIO(complete_lines(text))) if _is_past(row, module.records)]
    copies = [row for row in copies if module.roster.label_of(row[0]) == path.stem]
    own = {tuple(row[:3]): row for row in rows}
    named = {tuple(row[:3]) for row in copies}
    # intact rows of the file take precedence
    both = [own.get(tuple(row[:3]), row) for row in copies] + [row for row in rows if tuple(row[:3]) not in named]
    both.sort(key=lambda row: int(row[1]))
    is_whole = _is_complete(both, path.stem, module)
    lost = f"{METRICS} lacks some of the rows as well, so a part of the curves is lost"
    then = f"repaired from {METRICS}" if is_whole else lost
    print(f"{path}: damaged or truncated: {then}", file=sys.stderr)
    return both


def _best_scores(iteration: int, scores: Mapping[str, float]) -> dict[str, float]:
    if "psnr" in scores:
        return {"best_psnr": scores["psnr"], "best_iteration": iteration}
    if "relative_error" in scores:
        return {"least_error": -scores["relative_error"], "best_iteration": iteration}
    return {}


def _merit(best: Mapping[str, float]) -> float:
    return best["best_psnr"] if "best_psnr" in best else best["least_error"]


def _format_rows(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
