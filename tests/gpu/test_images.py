"""Images that take turns on a GPU."""

import pytest

from dop_lightning.engine.graphs import MIN_REPLAYS, WARM_UP
from dop_lightning.images.cost import block_length
from tests.pretend_cuda.checks import ON_PRETENDED, watched
from tests.suites.everywhere import CASES


@pytest.mark.parametrize(("side", "width"), [(64, 64), (512, 128), (2048, 128)])
def test_a_step_is_long_enough_for_a_graph(side: int, width: int) -> None:
    assert block_length(side * side, width, "cuda") >= WARM_UP + MIN_REPLAYS


class TestTurns:
    pytestmark = ON_PRETENDED

    def test_a_batch_that_is_released_after_each_step_replays_graphs(self) -> None:
        state, block = CASES["network"].begin("cuda"), block_length(512 * 512, 128, "cuda")
        with watched() as seen:
            for _ in range(2):
                state.advance(block)
                state.release()
        assert seen.launches["graph"] == 2 * (block - WARM_UP)
