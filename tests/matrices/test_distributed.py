"""Saved rows of several ranks, read by any number of them."""

from pathlib import Path

import pytest
import torch

from dop_lightning.engine.projections.ranks import SINGLE_PROCESS
from dop_lightning.foundation.saved_state import save_state
from dop_lightning.matrices.distributed import PROGRESS, require_rows, text_of_first, with_own_rows

LEFT = torch.arange(30.0).view(10, 3)


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, object]:
    starts = [0, 3, 6]
    for start, rows in zip(starts, LEFT.split([3, 3, 4]), strict=True):
        with (tmp_path / f"progress-5-{start}.pt").open("wb") as file:
            save_state({"left": rows.clone()}, file)
    pieces = [f"progress-5-{start}.pt" for start in starts]
    return {"tensors": {"right": torch.ones(4, 3)}, "pieces": pieces, "starts": starts}


@pytest.mark.parametrize("rows", [slice(0, 10), slice(0, 5), slice(5, 10), slice(3, 6), slice(7, 8)])
def test_rows_are_found_in_the_files_of_other_ranks(saved: dict[str, object], tmp_path: Path, rows: slice) -> None:
    found = with_own_rows(saved, tmp_path, rows)
    assert torch.equal(found["tensors"]["left"], LEFT[rows])
    assert torch.equal(found["tensors"]["right"], torch.ones(4, 3))
    assert torch.equal(with_own_rows({"tensors": {"left": LEFT}}, tmp_path, rows)["tensors"]["left"], LEFT[rows])


def test_a_damaged_or_missing_file_is_named(saved: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "progress-5-3.pt"
    content = bytearray(file.read_bytes())
    content[content.index(LEFT[3:6].numpy().tobytes())] ^= 1
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"progress-5-3\.pt: damaged.*; remove .*{PROGRESS} to start over"):
            with_own_rows(saved, tmp_path, slice(0, 5))
        file.unlink(missing_ok=True)
    assert torch.equal(with_own_rows(saved, tmp_path, slice(7, 10))["tensors"]["left"], LEFT[7:]), "it is not needed"


def test_a_rank_needs_16_rows_and_a_column() -> None:
    require_rows(64, 4, 4, "a")
    for n, m in ((63, 4), (64, 3)):
        with pytest.raises(ValueError, match=f"a: the {n} rows and {m} columns .* over at most 3 processes"):
            require_rows(n, m, 4, "a")


def test_text_of_the_first_process_is_shared() -> None:
    assert text_of_first(lambda: "Größe 3×4", SINGLE_PROCESS) == "Größe 3×4"
    assert text_of_first(str, SINGLE_PROCESS) == ""
