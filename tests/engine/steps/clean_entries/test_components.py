"""Connected components, compared with a flood fill, pixel by pixel."""

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.components import Boxes, Extents, dilate, grow, labels


def flooded(found: Tensor, alike: Tensor) -> Tensor:
    """Label components in the order of their first pixels, by a flood fill."""
    result, count = torch.zeros(found.shape, dtype=torch.int64), 0
    for seed in found.nonzero().tolist():
        if result[tuple(seed)]:
            continue
        count += 1
        waiting = [tuple(seed)]
        while waiting:
            row, column = waiting.pop()
            if result[row, column]:
                continue
            result[row, column] = count
            for i in range(max(0, row - 1), min(found.shape[0], row + 2)):
                for j in range(max(0, column - 1), min(found.shape[1], column + 2)):
                    if found[i, j] and alike[i, j] == alike[row, column]:
                        waiting.append((i, j))
    return result


def masks(count: int = 20) -> list[tuple[Tensor, Tensor]]:
    """Return random foregrounds of random sizes and densities, and values of their pixels."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        shape = torch.randint(1, 25, (2,), generator=generator).tolist()
        density = float(torch.rand(1, generator=generator))
        made.append((torch.rand(shape, generator=generator) < density, torch.randint(3, shape, generator=generator)))
    return made


@pytest.mark.parametrize("by_value", [False, True])
def test_labels_are_those_of_a_flood_fill(by_value: bool) -> None:
    for found, values in masks():
        expected = flooded(found, values if by_value else torch.zeros_like(values))
        assert torch.equal(labels(found, values if by_value else None), expected)


def test_a_spiral_is_one_component() -> None:
    """A spiral is the longest path through a square, so minima have far to spread."""
    size = 41
    found = torch.zeros(size, size, dtype=torch.bool)
    row, column, down, right = 0, 0, 0, 1
    found[row, column] = True
    length = size - 1
    for side in range(size - 1):
        for _ in range(length):
            row, column = row + down, column + right
            found[row, column] = True
        down, right = right, -down
        length -= 2 * (side % 2) if side else 0
        if length <= 0:
            break
    assert int(found.sum()) > 400
    assert int(labels(found).max()) == 1
    assert torch.equal(labels(found) > 0, found)


def test_without_foreground() -> None:
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    assert torch.equal(labels(nothing), torch.zeros(3, 4, dtype=torch.int64))
    assert torch.equal(grow(nothing, ~nothing), nothing)
    assert bool(Extents.of(nothing).width.isneginf().all())


def test_seeds_grow_to_their_components() -> None:
    for found, values in masks():
        seeds, loose = found & (values == 0), found & (values < 2)
        numbers = labels(loose | seeds)
        expected = torch.isin(numbers, numbers[seeds]) & (numbers > 0)
        assert torch.equal(grow(seeds, loose), expected)


def test_extents_are_the_sizes_of_the_boxes() -> None:
    for found, _ in masks():
        numbers, extents = labels(found), Extents.of(found)
        boxes = Boxes.of(numbers)
        assert torch.equal(extents.height[found].long(), boxes.height[numbers[found] - 1])
        assert torch.equal(extents.width[found].long(), boxes.width[numbers[found] - 1])
        assert bool(extents.height[~found].isneginf().all())


def test_dilation_adds_the_eight_neighbours() -> None:
    for found, _ in masks():
        expected = torch.nn.functional.max_pool2d(found[None].float(), 3, 1, 1)[0] > 0
        assert torch.equal(dilate(found), expected)
