"""States on disk: every value and tensor is checked when it is read."""

import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from dop_lightning.foundation.saved_state import check_archive, load_state, save_state, state_checksum


def state() -> dict[str, Any]:
    tensors = [
        torch.arange(6.0).reshape(2, 3),
        torch.tensor(True),
        torch.zeros(0, 3),
        torch.ones(2, dtype=torch.bfloat16),
    ]
    return {"name": "å", "numbers": [1, 2.5, None, True, float("inf")], "tensors": tensors, "size": torch.Size([2])}


def saved(path: Path, content: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    save_state(content, stream)
    path.write_bytes(stream.getvalue())
    return stream.getvalue()


def test_saved_state_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path / "state.pt", state())
    found = load_state(tmp_path / "state.pt")
    assert found.keys() == state().keys()
    assert all(torch.equal(a, b) for a, b in zip(found["tensors"], state()["tensors"], strict=True))
    assert state_checksum(found) == state_checksum(state())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        ({"a": 1}, {"b": 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (1, True),
        (1, 1.0),
        ("1", b"1"),
        ([1, [2]], [[1], 2]),
        (["ab", "c"], ["a", "bc"]),
        (None, "None"),
    ],
)
def test_other_states_have_other_checksums(one: object, other: object) -> None:
    assert state_checksum(one) != state_checksum(other)


def test_the_strides_of_a_tensor_do_not_matter() -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    assert state_checksum(tensor.t()) == state_checksum(tensor.t().contiguous())


def error_of(path: Path) -> str:
    """Return the description of a damaged file; empty if it is loaded with the written content."""
    try:
        found = load_state(path)
    except ValueError as error:
        return str(error)
    assert state_checksum(found) == state_checksum(state())
    return ""


def test_flipped_bit_is_harmless_or_detected(tmp_path: Path) -> None:
    draws, path = random.Random(0), tmp_path / "state.pt"
    whole, said = saved(path, state()), []
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        said.append(error_of(path))
    noticed = [line for line in said if line]
    assert len(noticed) > 50
    assert all(str(path) in line and "\n" not in line for line in noticed)


def test_a_file_of_an_earlier_version_is_checked_by_its_archive(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"tensor": torch.full((1000,), 3.0)}, path)
    assert torch.equal(load_state(path)["tensor"], torch.full((1000,), 3.0))
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((1000,), 3.0).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)  # torch does not notice
    with pytest.raises(ValueError, match=r"state\.pt: damaged, the checksum of its record .*data/0 does not match"):
        load_state(path)
    with pytest.raises(ValueError, match=r"state\.pt: damaged, the checksum of its record"):
        check_archive(path)


def test_other_objects_use_the_archive_checksum(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must consist of tensors and plain values, got set"):
        state_checksum({"a": {1, 2}})
    saved(tmp_path / "state.pt", {"a": {1, 2}})
    assert load_state(tmp_path / "state.pt") == {"a": {1, 2}}
