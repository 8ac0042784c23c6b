"""One interface to the loggers of Lightning, which log pictures and summaries each in its own way.

The adapters call the methods that Lightning documents. A logger without an adapter of its own gets hyperparameters,
metrics, and pictures if it has a method ``log_image``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from dop_lightning.images.pictures import Picture
from dop_lightning.lightning.loggers.hparams import session_end, session_start
from dop_lightning.lightning.loggers.names import flat, mlflow_key, mlflow_parameters

Parameters = Mapping[str, Any]


class Adapter:
    """Any logger.

    Args:
        logger: a logger of a trainer.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def log_hyperparameters(self, parameters: Parameters) -> None:
        """Log the settings of a run: nested dictionaries of plain types."""
        self.logger.log_hyperparams(dict(parameters))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at an iteration; keys are tags, ``psnr``, or tags of problems, ``psnr/photo``."""
        self.logger.log_metrics(metrics=dict(metrics), step=step)
        self.logger.save()

    def log_picture(self, key: str, picture: Picture, step: int) -> None:
        """Log a picture of an iteration, ``recovered/photo``, if the logger takes any."""
        if hasattr(self.logger, "log_image"):
            self.logger.log_image(key=key, images=[picture], step=step)

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        """Log how a run ended.

        Args:
            scores: final scores by key, of the mean and of problems.
            known: the last values that were logged; a score that equals its last value is not logged again.
            statuses: by key, ``status`` and ``status/photo``.
            step: the iteration that the run has reached.
        """
        if new := _changed(scores, known):
            self.log_metrics(new, step)


class _CSV(Adapter):
    """The last value of each column of ``metrics.csv`` is final; the last row holds the statuses as text."""

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        self.log_metrics({**_changed(scores, known), **statuses}, step)  # type: ignore[dict-item]


class _TensorBoard(Adapter):
    """The tab HPARAMS shows the settings beside the last values of all curves, which are the final scores."""

    def log_hyperparameters(self, parameters: Parameters) -> None:
        self.logger.log_hyperparams(dict(parameters), {})  # for hparams.yaml; no hp_metric
        columns = {"/".join(path): _column(value) for path, value in flat(parameters).items()}
        self.logger.experiment.file_writer.add_summary(session_start(columns, ""))
        self.logger.save()

    def log_picture(self, key: str, picture: Picture, step: int) -> None:
        self.logger.experiment.add_image(key, picture, step, dataformats="HW" if picture.ndim == 2 else "HWC")

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        super().log_final(scores, known, statuses, step)
        writer = self.logger.experiment
        writer.add_text("status", "\n".join(f"- {key}: {status}" for key, status in statuses.items()), step)
        whole = statuses["status"]
        if whole != "interrupted":  # which may be resumed, and TensorBoard keeps the first end that it reads
            writer.file_writer.add_summary(session_end("diverged" if whole == "diverged" else "done"), step)
        self.logger.save()


class _Wandb(Adapter):
    """Scores and statuses are in the summary of the run."""

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        super().log_final(scores, known, statuses, step)
        self.logger.experiment.summary.update({**scores, **statuses})


class _MLflow(Adapter):
    """Names follow :mod:`~dop_lightning.lightning.loggers.names`; statuses are tags of the run."""

    def log_hyperparameters(self, parameters: Parameters) -> None:
        """Log what the run does not hold yet: MLflow never changes a parameter."""
        new = mlflow_parameters(parameters)
        held = self.logger.experiment.get_run(self.logger.run_id).data.params
        if other := [key for key in new if key in held and held[key] != str(new[key])[: len(held[key])]]:
            rank_zero_warn(
                f"MLflow keeps the first value of a parameter; {', '.join(other[:3])} of this run changed since, and "
                "keeps its old value there"
            )
        self.logger.log_hyperparams({key: value for key, value in new.items() if key not in held})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        super().log_metrics({mlflow_key(key): value for key, value in metrics.items()}, step)

    def log_picture(self, key: str, picture: Picture, step: int) -> None:
        self.logger.experiment.log_image(self.logger.run_id, picture, key=mlflow_key(key), step=step)

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        super().log_final(scores, known, statuses, step)
        for key, status in statuses.items():
            self.logger.experiment.set_tag(self.logger.run_id, mlflow_key(key), status)


_ADAPTERS: tuple[tuple[type[Logger], type[Adapter]], ...] = (
    (TensorBoardLogger, _TensorBoard),
    (CSVLogger, _CSV),
    (WandbLogger, _Wandb),
    (MLFlowLogger, _MLflow),
)


def adapters_of(loggers: Iterable[Logger]) -> list[Adapter]:
    """Return the adapters of the loggers of a trainer."""
    return [next((made for kind, made in _ADAPTERS if isinstance(logger, kind)), Adapter)(logger) for logger in loggers]


def _changed(scores: Mapping[str, float], known: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in scores.items() if known.get(key) != value}


def _column(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
