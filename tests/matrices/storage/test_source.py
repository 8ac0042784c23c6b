"""Matrices that are read in strips instead of as tensors."""

import numpy as np
import pytest
import torch

from dop_lightning.matrices.storage import source
from dop_lightning.matrices.storage.source import StripMatrix


class Counted:
    """An array that counts what is read of it."""

    def __init__(self, array: np.ndarray, chunk: int) -> None:
        self.array, self.chunk = array, chunk
        self.shape, self.dtype = array.shape, array.dtype
        self.reads: list[tuple[int, int]] = []

    def rows(self, start: int, stop: int) -> np.ndarray:
        self.reads.append((start, stop))
        return self.array[start:stop]


@pytest.mark.parametrize("chunk", [1, 4, 7, 100])
def test_a_stored_matrix_is_indexed_as_a_tensor(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    array = np.random.default_rng(0).normal(size=(50, 6))
    monkeypatch.setattr(source, "BLOCK_BYTES", 10 * 6 * 8)
    stored, tensor = StripMatrix("a", Counted(array, chunk)), torch.from_numpy(array)
    assert (stored.shape, stored.dtype, len(stored), stored.numel()) == (tensor.shape, tensor.dtype, 50, 300)
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randint(side, (40,), generator=generator) for side in (50, 6))
    for key in (slice(3, 9), slice(8, 31), slice(45, 60), slice(0, 0), rows, (rows, columns), (slice(None), columns)):
        assert torch.equal(stored[key], tensor[key])


def test_part_is_read_in_place() -> None:
    counted = Counted(np.arange(300, dtype=np.float32).reshape(50, 6), 4)
    part = StripMatrix("a", counted).part(slice(10, 30))
    assert part.shape == (20, 6)
    assert counted.reads == []
    np.testing.assert_array_equal(part[3:20].numpy(), counted.array[13:30])
    assert counted.reads == [(10, 30)]


def test_a_pass_reads_each_chunk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BLOCK_BYTES", 25 * 6 * 4)
    counted = Counted(np.ones((100, 6), dtype=np.float32), 10)
    stored = StripMatrix("a", counted)
    assert stored.decodings == 1
    for start in range(0, 100, 5):
        assert stored[start : start + 5].shape == (5, 6)
    assert counted.reads == [(start, start + 20) for start in range(0, 100, 20)]
    counted.reads.clear()
    _ = stored[torch.tensor([97, 3, 98]), torch.tensor([0, 0, 0])]
    assert counted.reads == [(0, 20), (80, 100)], "each block once"


def test_chunks_above_the_memory_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BLOCK_BYTES", 25 * 6 * 4)
    counted = Counted(np.ones((100, 6), dtype=np.float32), 100)
    assert StripMatrix("a", counted).decodings == 4
    _ = StripMatrix("a", counted)[0:3]
    assert counted.reads == [(0, 25)]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 3), dtype=complex), "a: the array must hold real numbers, got complex128"),
        (np.full((3, 3), "x"), "a: the array must hold real numbers, got <U1"),
        (np.ones((3, 3, 3)), r"a: the array must be a matrix .* got shape \(3, 3, 3\)"),
        (np.ones((3, 0)), r"got shape \(3, 0\)"),
    ],
)
def test_other_sources_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StripMatrix("a", Counted(array, 1))
