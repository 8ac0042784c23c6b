"""The comparison of `scripts/compare_runs.py`, on folders written here."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SCRIPT = "compare_runs"

RESULTS = "problem,seed,seconds,psnr\na,0,1.5,30.25\nb,1,1.5,31\n"
METRICS = "problem,iteration,tag,value\na,10,loss,0.5\na,20,loss,0.25\n"


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal run folders, written at different speeds."""
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "a").mkdir(parents=True)
    (old / "results.csv").write_text(RESULTS)
    (old / "metrics.csv").write_text(METRICS)
    (old / "config.yaml").write_text("seed: 0\n")
    np.save(old / "a" / "recovered.npy", np.arange(6.0).reshape(2, 3))
    np.savez(old / "a" / "returned.npz", alpha=np.asarray(2.5), status=np.asarray("done"))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(old / "a" / "recovered.png")
    (old / "a" / "result.json").write_text(json.dumps({"psnr": 30.25, "seconds": 1.5, "machine": {"threads": 1}}))
    shutil.copytree(old, new)
    (new / "config.yaml").write_text("seed: 1\n")
    (new / "results.csv").write_text(RESULTS.replace("1.5", "2.5"))
    (new / "a" / "result.json").write_text(json.dumps({"psnr": 30.25, "seconds": 2.5, "machine": {"threads": 2}}))
    return old, new


def test_equal_folders_may_differ_in_seconds(script: ModuleType, runs: tuple[Path, Path]) -> None:
    assert script.compare_folders(*runs) == []


def test_the_order_of_curves_does_not_matter_but_that_of_results_does(
    script: ModuleType, runs: tuple[Path, Path]
) -> None:
    for name in ("metrics.csv", "results.csv"):
        header, *rows = (runs[1] / name).read_text().splitlines()
        (runs[1] / name).write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert script.compare_folders(*runs) == ["results.csv: row 1 (a), problem: 'a' in old, 'b' in new"]


def test_one_bit_of_an_array_is_reported(script: ModuleType, runs: tuple[Path, Path]) -> None:
    path = runs[1] / "a" / "recovered.npy"
    array = np.load(path)
    array[1, 1] = np.nextafter(array[1, 1], 5)
    np.save(path, array)
    assert script.compare_folders(*runs) == ["a/recovered.npy: 1 of 6 entries differ, by at most 8.88e-16"]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (np.zeros((3, 2)), "shape (2, 3) in old, (3, 2) in new"),
        (np.zeros((2, 3), np.float32), "dtype float64 in old, float32 in new"),
        (-np.zeros((2, 3)), "equal values with different bits (signs of zeros, or NaN)"),
        (np.full((2, 3), np.nan), "6 of 6 entries differ, by at most nan"),
        (np.zeros((2, 3)), ""),
    ],
)
def test_arrays_are_compared_by_shape_type_and_bytes(script: ModuleType, new: np.ndarray, message: str) -> None:
    old = np.zeros((3, 2)) if message == "" and new.shape == (3, 2) else np.zeros((2, 3))
    assert script.compare_arrays(old, new) == message


def test_a_cell_of_the_results_is_reported_first(script: ModuleType, runs: tuple[Path, Path]) -> None:
    table = runs[1] / "results.csv"
    table.write_text(table.read_text().replace("30.25", "30.5"))
    (runs[1] / "a" / "recovered.png").unlink()
    assert script.compare_folders(*runs) == [
        "results.csv: row 1 (a), psnr: '30.25' in old, '30.5' in new (difference 0.25)",
        "a/recovered.png: only in old",
    ]


def test_columns_and_rows_are_reported(script: ModuleType, runs: tuple[Path, Path]) -> None:
    table = runs[1] / "results.csv"
    table.write_text(RESULTS.replace("psnr", "ssim"))
    assert script.compare_folders(*runs) == ["results.csv: columns psnr, ssim only in one file"]
    table.write_text(RESULTS.rsplit("b,", 1)[0])
    assert script.compare_folders(*runs) == ["results.csv: 2 rows in old, 1 in new"]


def test_a_missing_and_an_added_file_are_reported(script: ModuleType, runs: tuple[Path, Path]) -> None:
    (runs[1] / "a" / "recovered.npy").rename(runs[1] / "a" / "signal.npy")
    assert script.compare_folders(*runs) == ["a/recovered.npy: only in old", "a/signal.npy: only in new"]


def test_pictures_scores_and_returned_values_are_compared(script: ModuleType, runs: tuple[Path, Path]) -> None:
    new = runs[1] / "a"
    Image.fromarray(np.full((4, 4), 3, np.uint8)).save(new / "recovered.png")
    (new / "result.json").write_text(json.dumps({"psnr": 30.5}))
    np.savez(new / "returned.npz", alpha=np.asarray(2.5), status=np.asarray("stop"))
    assert script.compare_folders(*runs) == [
        "a/returned.npz: status: 'done' in old, 'stop' in new",
        "a/recovered.png: 16 of 16 entries differ, by at most 3",
        "a/result.json: psnr: 30.25 in old, 30.5 in new (difference 0.25)",
    ]


def test_a_mistake_is_one_line(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(Path(__file__).parents[2])
    for arguments, message in (
        ([str(tmp_path), root], "OLD must be a checkout with dop_lightning/ and configs/, got "),
        ([root, root, "--case", "matrices"], "--case must be one of matrix, "),
        ([root, root, "--threads", "0"], "--threads must be at least 1, got 0"),
        ([root, root, "--work", root], "--work must be a new or empty folder, got "),
    ):
        with pytest.raises(SystemExit) as left:
            script.parse(arguments)
        said = capsys.readouterr().err
        assert left.value.code == 2
        assert message in said
        assert said.count("\n") == 1
