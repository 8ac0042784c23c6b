"""Common interface to the loggers of Lightning, which log pictures and summaries in different ways.

The adapters call methods that Lightning documents. Loggers without a specific adapter receive hyperparameters, metrics,
and, if they have a method ``log_image``, pictures.
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
    """Adapter of any logger.

    Args:
        logger: a logger of a trainer.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def log_hyperparameters(self, parameters: Parameters) -> None:
        """Log the settings of a run: nested dictionaries of plain types."""
        self.logger.log_hyperparams(dict(parameters))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at an iteration. Keys are tags, such as ``psnr``, or tags of problems, such as ``psnr/photo``."""
        self.logger.log_metrics(metrics=dict(metrics), step=step)
        self.logger.save()

    def log_picture(self, key: str, picture: Picture, step: int) -> None:
        """Log a picture at an iteration, such as ``recovered/photo``, if the logger supports pictures."""
        if hasattr(self.logger, "log_image"):
            self.logger.log_image(key=key, images=[picture], step=step)

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        """Log the end of a run.

        Args:
            scores: final scores by key: means, and scores of problems.
            known: last logged values; a score that equals its last value is not logged again.
            statuses: statuses by key: ``status`` and ``status/photo``.
            step: final iteration of the run.
        """
        if new := _changed_scores(scores, known):
            self.log_metrics(new, step)


class _CSV(Adapter):
    """Log final scores as the last values in ``metrics.csv``, and statuses as text in its last row."""

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        self.log_metrics({**_changed_scores(scores, known), **statuses}, step)  # type: ignore[dict-item]


class _TensorBoard(Adapter):
    """Show the settings in the tab HPARAMS, next to the last values of all curves, which are the final scores."""

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
        if whole != "interrupted":  # an interrupted run may be resumed, but TensorBoard keeps the first end
            writer.file_writer.add_summary(session_end("diverged" if whole == "diverged" else "done"), step)
        self.logger.save()


class _Wandb(Adapter):
    """Add scores and statuses to the summary of the run."""

    def log_final(
        self, scores: Mapping[str, float], known: Mapping[str, Any], statuses: Mapping[str, str], step: int
    ) -> None:
        super().log_final(scores, known, statuses, step)
        self.logger.experiment.summary.update({**scores, **statuses})


class _MLflow(Adapter):
    """Convert names by :mod:`~dop_lightning.lightning.loggers.names`, and log statuses as tags of the run."""

    def log_hyperparameters(self, parameters: Parameters) -> None:
        """Log new parameters only, since MLflow never changes a parameter."""
        new = mlflow_parameters(parameters)
        held = self.logger.experiment.get_run(self.logger.run_id).data.params
        if other := [key for key in new if key in held and held[key] != str(new[key])[: len(held[key])]]:
            rank_zero_warn(
                f"MLflow keeps the first value of a parameter; {', '.join(other[:3])} of this run changed since then, "
                "but MLflow keeps the old value"
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


def _changed_scores(scores: Mapping[str, float], known: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in scores.items() if known.get(key) != value}


def _column(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
