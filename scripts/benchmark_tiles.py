"""Compare tiles on a CPU one after the other with all threads, and side by side with one thread each.

    OMP_NUM_THREADS=2 python scripts/benchmark_tiles.py

The script runs iterations of the preset `default` on tiles of 128×128 pixels, and on a whole image of 512×512 pixels
for comparison. It prints iterations per second, and pixels times iterations per second. The variants take turns; the
result is the median over the rounds.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from dop_lightning.cli.configs.preset_times import probe_state
from dop_lightning.engine.concurrency import ConcurrentBatches
from dop_lightning.engine.descent import BatchState
from dop_lightning.images.presets import PRESETS


def rate(
    advance: Callable[[Sequence[BatchState], int], object], states: Sequence[BatchState], iterations: int
) -> float:
    """Return iterations per second, over all states together."""
    begin = time.perf_counter()
    advance(states, iterations)
    return len(states) * iterations / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile", type=int, default=128, help="side of a tile in pixels; default: %(default)s")
    parser.add_argument(
        "--whole", type=int, default=512, help="side of the whole image in pixels, 0 to skip it; default: %(default)s"
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="default", help="default: %(default)s")
    parser.add_argument("--iterations", type=int, default=50, help="iterations per round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    threads, together = torch.get_num_threads(), ConcurrentBatches()

    def in_turn(states: Sequence[BatchState], iterations: int) -> None:
        for state in states:
            state.advance(iterations)

    def on_one_thread(states: Sequence[BatchState], iterations: int) -> None:
        torch.set_num_threads(1)
        in_turn(states, iterations)
        torch.set_num_threads(threads)

    def side_by_side(states: Sequence[BatchState], iterations: int) -> None:
        for done in range(0, iterations, 10):  # in blocks, as in a run
            together.advance(states, [min(10, iterations - done)] * len(states))

    tiles = [probe_state(PRESETS[options.preset], options.tile, is_tile=True) for _ in range(threads)]
    ways: dict[str, tuple[Callable[[Sequence[BatchState], int], object], list[BatchState], int]] = {
        "tiles in turn, one thread": (on_one_thread, tiles, options.iterations),
        f"tiles in turn, {threads} threads": (in_turn, tiles, options.iterations),
        f"tiles side by side, {threads} threads": (side_by_side, tiles, options.iterations),
    }
    if options.whole:
        whole = [probe_state(PRESETS[options.preset], options.whole, is_tile=False)]
        fewer = max(1, options.iterations * options.tile**2 // options.whole**2)
        ways[f"whole image, {threads} threads"] = (in_turn, whole, fewer)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        for name, (advance, states, iterations) in ways.items():
            measured = rate(advance, states, iterations)
            if round_:  # the first round is a warm-up of kernels and memory
                rates[name].append(measured)
    print(f"{'':32}  it/s  million pixels × it/s")
    for name, of_rounds in rates.items():
        side = options.whole if name.startswith("whole") else options.tile
        middle = median(of_rounds)
        print(f"{name:32} {middle:5.1f}  {middle * side**2 / 1e6:.2f}")


if __name__ == "__main__":
    main()
