"""Summaries for TensorBoard's HPARAMS tab: the settings of a problem, and how it ended.

The two summaries are in the problem's own TensorBoard run. ``SummaryWriter.add_hparams`` would create a second run and
also write a list of columns. TensorBoard uses the first such list that it finds, which would hide the columns of other
problems. Without a list, it collects the columns of all runs, those that differ first, and shows the last value of
every curve next to them.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dop_lightning.engine.outcome import Status
from dop_lightning.engine.state import State
from dop_lightning.problems.problem import Attribute, Problem

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def hyperparameters(problem: Problem, state: State, k: int) -> dict[str, Attribute]:
    """Return the columns of a problem: its attributes, seed, rates, and the classes of its parts.

    Args:
        problem: a problem with a row in the table of results; of an image in tiles, the whole image.
        state: batch in which the problem, or a tile of it, is recovered.
        k: position in the batch.

    Returns:
        Values by name, without settings that do not apply to the method.
    """
    return {**problem.attributes, "seed": problem.seed, **state.settings(k)}


def session_start(columns: Mapping[str, Attribute], group: str) -> "Summary":
    """Create the summary with the settings of a problem.

    Args:
        columns: values by name. Non-finite numbers are skipped, since the tab would display nothing at all.
        group: name of the group; runs of a group share a row, with the means of their scores.
    """
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionStartInfo(group_name=group)
    for name, value in columns.items():
        if isinstance(value, bool):  # before int, its base class
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
        elif isinstance(value, int | float) and math.isfinite(value):
            info.hparams[name].number_value = value
    data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _summary(metadata.SESSION_START_INFO_TAG, data)


def session_end(status: Status) -> "Summary":
    """Create the summary with the end of a problem, which is a failure if it diverged.

    Args:
        status: final status. Do not log interrupted problems, since TensorBoard keeps the first end.
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = api_pb2.STATUS_FAILURE if status == "diverged" else api_pb2.STATUS_SUCCESS
    data = plugin_data_pb2.HParamsPluginData(session_end_info=plugin_data_pb2.SessionEndInfo(status=end))
    return _summary(metadata.SESSION_END_INFO_TAG, data)


def _summary(tag: str, data: "HParamsPluginData") -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    described = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)])
