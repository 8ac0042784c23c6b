"""Tables that are larger than memory."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dop_lightning.cli.main import main
from dop_lightning.engine.projections import AlternatingProjections, Recovery
from dop_lightning.matrices import mapped_folder, table_strips, tables
from dop_lightning.matrices.arrays import read_matrix
from dop_lightning.matrices.mapped import separate_mapped
from dop_lightning.matrices.table_strips import convert_table, read_strips, table_bytes
from tests.engine.projections.builders import problem

NUMBERS = "\n".join(f"{k},{k / 4},{'' if k % 5 == 0 else -k}" for k in range(12))

TEXTS = {
    "plain": (NUMBERS, ()),
    "header": ("a,b,c\n" + NUMBERS, ()),
    "comments": ("# of a device\n\n# twice\na,b,c\n" + NUMBERS.replace("\n", "\n\n"), ()),
    "labels": ("name,a,b\n" + "\n".join(f"row {k},{k},{k}e-3" for k in range(12)), ()),
    "index": ("a,day,b\n" + "\n".join(f"{k},2024-01-{k + 1:02},{k / 8}" for k in range(12)), ("day",)),
    "commas": ("a;b\n" + "\n".join(f"{k},5;{k}" for k in range(12)), ()),
    "blanks": ("\n".join(f"{k}  {k / 2} {k}" for k in range(12)), ()),
    "R": ("a,b\n" + "\n".join(f'"r{k}",{k},NA' if k == 3 else f'"r{k}",{k},1' for k in range(12)), ()),
}


@pytest.fixture(autouse=True)
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_strips, "STRIP_BYTES", 8 * 3 * 5)
    monkeypatch.setattr(tables, "SAMPLE", 4)


def assert_same(path: Path, index: tuple[str, ...] = ()) -> None:
    """Assert that the strips are the table that is read at once."""
    values, mask, _ = read_matrix(path, index=index)
    shape, strips = read_strips(path, index)
    found = list(strips)
    assert shape == values.shape
    assert len(found) > 1
    together = torch.from_numpy(np.concatenate(found))
    observed = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    assert torch.equal(~torch.isnan(together), observed)
    assert torch.equal(together[observed], values[observed].double())
    convert_table(path, path.with_name("copy.npy"), index)
    np.testing.assert_array_equal(np.load(path.with_name("copy.npy")), together.numpy())


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("name", TEXTS)
def test_text_in_strips_is_the_table(tmp_path: Path, name: str, suffix: str) -> None:
    text, index = TEXTS[name]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix == ".csv.gz" else text.encode())
    assert_same(path, index)


def test_parquet_in_strips_is_the_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, *range(10)], dtype="Int64"),
            "day": pd.date_range("2024-01-01", periods=12),
            "half": np.arange(12) / 8,
            "flag": [k % 3 == 0 for k in range(12)],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    assert_same(tmp_path / "a.parquet", ("day",))
    assert table_bytes(tmp_path / "a.parquet") == 12 * 4 * 8
    with pytest.raises(ValueError, match=r"columns must hold numbers, got timestamp.* in column 'day'"):
        read_strips(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"b\.parquet: must be a Parquet file"):
        read_strips(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,x,2", r"a\.csv: cells must be numbers, or empty if missing, got 'x' in row 9, column 2"),
        ("1,2", r"a\.csv: rows must have equal lengths, got 2 cells in row 9 and 3 above"),
    ],
)
def test_errors_below_the_first_rows_are_reported(tmp_path: Path, line: str, message: str) -> None:
    lines = NUMBERS.splitlines()
    lines[8] = line
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        convert_table(tmp_path / "a.csv", tmp_path / "copy.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_large_table_is_copied_once_and_separated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table_strips, "STRIP_BYTES", 2**14)
    given = problem(200, 100, 2).observation.numpy().astype(np.float64)
    np.save(tmp_path / "b.npy", given)
    separate_mapped(tmp_path / "b.npy", tmp_path / "b", AlternatingProjections(), say=lambda _: None)
    np.savetxt(tmp_path / "a.csv", given, delimiter=",", fmt="%.17g")
    out = tmp_path / "out"
    command = ["separate", str(tmp_path / "a.csv"), "--out", str(out), "--max-memory", "1K"]
    step = Recovery.step

    def interrupted(recovery: Recovery) -> None:
        if recovery.steps_done == 3:
            raise KeyboardInterrupt
        step(recovery)

    with monkeypatch.context() as patch:
        patch.setattr(Recovery, "step", interrupted)
        assert main(command) == 130
    assert "copying the table to" in capsys.readouterr().err
    monkeypatch.setattr(mapped_folder, "convert_table", lambda *_: pytest.fail("the table is copied again"))
    assert main(command) == 0
    assert sorted(path.name for path in (out / "a").iterdir()) == ["corruption.npy", "recovered.npy", "result.json"]
    for name in ("recovered", "corruption"):
        np.testing.assert_array_equal(np.load(out / "a" / f"{name}.npy"), np.load(tmp_path / "b" / f"{name}.npy"))
    assert main([*command[:4], "--max-memory", "1K", "--index", "x"]) != 0
    assert "index differ" in capsys.readouterr().err
