"""What TensorBoard's HPARAMS tab shows of a problem: its settings, and how it ended.

The two summaries lie in the problem's own run. ``SummaryWriter.add_hparams`` would put them into a second one beside
it, and write a list of columns besides, of which TensorBoard takes the first that it finds: columns of other problems
would be missing. Without such a list it gathers the columns of all runs itself, those that differ first, and shows the
last value of every curve beside them.
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
    """The columns of a problem: its attributes, seed, rates, and the classes of the parts it is recovered by.

    Args:
        problem: of which there is a row in the table of results: an image, where its tiles are what is recovered.
        state: the batch that it is recovered in, itself or as a tile.
        k: its position there.

    Returns:
        By name; what has no meaning for the method is left out.
    """
    return {**problem.attributes, "seed": problem.seed, **state.settings(k)}


def session_start(columns: Mapping[str, Attribute], group: str) -> "Summary":
    """The summary with the settings of a problem.

    Args:
        columns: by name. Numbers that are not finite are left out: the tab would show nothing at all.
        group: runs of one group share a row, with the means of their scores.
    """
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionStartInfo(group_name=group)
    for name, value in columns.items():
        if isinstance(value, bool):  # which is an int as well
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
        elif isinstance(value, int | float) and math.isfinite(value):
            info.hparams[name].number_value = value
    data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _summary(metadata.SESSION_START_INFO_TAG, data)


def session_end(status: Status) -> "Summary":
    """The summary with the end of a problem: a failure where it diverged.

    Args:
        status: a final one; of an interrupted problem TensorBoard would keep what is told first.
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
