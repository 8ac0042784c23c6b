import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.io import savemat

from dop_lightning.foundation.find import find_files
from dop_lightning.matrices.arrays import MATRIX_SUFFIXES, matrix_suffix, read_matrix
from dop_lightning.matrices.storage.places import HDF5_SUFFIXES, STORE_SUFFIXES
from dop_lightning.matrices.tables import write_table
from tests.matrices.storage.builders import store

NAN = float("nan")
WHOLE = np.array([[1.0, 2.5, -3.0], [4.0, 5.0, 6e-3]])


def write(path: Path, array: Any) -> Path:
    """An array alone in a file of any kind."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, x=array)
    elif path.suffix == ".mat":
        savemat(path, {"x": array})
    elif matrix_suffix(path) in STORE_SUFFIXES:
        store(path, array)
    elif path.suffix == ".parquet":
        pd.DataFrame(array, columns=[f"c{j}" for j in range(array.shape[1])]).to_parquet(path)
    else:
        np.savetxt(path, array, delimiter="\t" if ".tsv" in path.name else ",")
    return path


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "a.csv"
    path.write_bytes(text.encode(encoding))
    return path


class TestEveryKind:
    @pytest.fixture(params=MATRIX_SUFFIXES)
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        if request.param == ".parquet":
            pytest.importorskip("pyarrow")
        if request.param in STORE_SUFFIXES:
            pytest.importorskip("h5py" if request.param in HDF5_SUFFIXES else "zarr")
        return tmp_path / f"a{request.param}"

    def test_round_trip_as_float64(self, path: Path) -> None:
        matrix, mask, _ = read_matrix(write(path, WHOLE))
        assert mask is None
        assert matrix.dtype == torch.float64
        assert np.array_equal(matrix.numpy(), WHOLE)

    def test_nan_is_missing(self, path: Path) -> None:
        matrix, mask, _ = read_matrix(write(path, np.array([[1.0, NAN], [NAN, 4.0]])))
        assert mask is not None
        assert mask.tolist() == [[True, False], [False, True]]
        assert matrix.tolist() == [[1.0, 0.0], [0.0, 4.0]]

    @pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
    def test_thin_matrices(self, path: Path, shape: tuple[int, int]) -> None:
        assert read_matrix(write(path, np.ones(shape)))[0].shape == shape

    def test_refuses_unobserved_and_infinite_arrays(self, path: Path) -> None:
        with pytest.raises(ValueError, match="at least one observed entry, got 4 missing"):
            read_matrix(write(path, np.full((2, 2), NAN)))
        other = path.with_name(f"b{path.name[1:]}")
        with pytest.raises(ValueError, match=r"finite.* got -inf in row 2, column 1"):
            read_matrix(write(other, np.array([[1.0, 2.0], [-np.inf, 4.0]])))

    def test_refuses_files_of_another_kind(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_matrix(path)
        path.touch()
        with pytest.raises(ValueError, match="is empty"):
            read_matrix(path)
        path.write_bytes(b"\x93 something else\xff")
        with pytest.raises(ValueError, match=f"{path.name}: .*got another"):
            read_matrix(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_truncated_anywhere(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    whole = write(path, np.ones((9, 9))).read_bytes()
    for kept in range(1, len(whole) - 1, 37):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=rf"a{suffix}: .*damaged"):
            read_matrix(path)


class TestTypes:
    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            ("f8", torch.float64), (">f8", torch.float64), ("f4", torch.float32), (">f4", torch.float32),
            ("f2", torch.float32), ("i8", torch.float32), ("u1", torch.float32), ("?", torch.float32),
            ("g", torch.float64),
        ],
    )  # fmt: skip
    def test_float64_is_kept_and_other_types_become_float32(
        self, tmp_path: Path, dtype: str, expected: torch.dtype
    ) -> None:
        array = np.asfortranarray(np.array([[1, 0, 1], [0, 1, 1]])).astype(dtype)
        matrix, mask, _ = read_matrix(write(tmp_path / "a.npy", array))
        assert (matrix.dtype, mask) == (expected, None)
        assert matrix.tolist() == [[1, 0, 1], [0, 1, 1]]

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones((2, 2), dtype=complex), "complex128"),
            (np.array([["a", "b"]]), "<U1"),
            (np.zeros((2, 2), dtype=[("x", "f8")]), "real numbers"),
            (np.array([[1, None]], dtype=object), "Python objects"),
            (np.ones(5), r"shape \(5,\)"),
            (np.ones((2, 3, 4)), r"shape \(2, 3, 4\)"),
            (np.float64(1), r"shape \(\)"),
            (np.ones((0, 3)), "at least one row"),
            (np.ones((3, 0)), "at least one row"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_refuses_other_than_real_matrices(self, tmp_path: Path, suffix: str, array: Any, message: str) -> None:
        with pytest.raises(ValueError, match=rf"a{suffix}: .*{message}"):
            read_matrix(write(tmp_path / f"a{suffix}", array))

    def test_refuses_other_suffixes_and_folders(self, tmp_path: Path) -> None:
        (tmp_path / "a.xlsx").write_text("x")
        with pytest.raises(ValueError, match=r"a\.xlsx: .*\.npy, \.npz, \.csv, .*\.mat, \.parquet, .*, got '\.xlsx'"):
            read_matrix(tmp_path / "a.xlsx")
        (tmp_path / "a.npy").mkdir()
        with pytest.raises(ValueError, match="got a folder"):
            read_matrix(tmp_path / "a.npy")


class TestKeys:
    @pytest.fixture(params=[".npz", ".mat"])
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        path = tmp_path / f"a{request.param}"
        arrays = {"x": WHOLE, "y": 2 * WHOLE}
        if request.param == ".npz":
            np.savez_compressed(path, **arrays)
        else:
            savemat(path, arrays, do_compression=True)
        return path

    def test_key_selects_an_array(self, path: Path) -> None:
        assert np.array_equal(read_matrix(path, "y")[0].numpy(), 2 * WHOLE)

    def test_key_must_exist(self, path: Path) -> None:
        with pytest.raises(ValueError, match=f"a{path.suffix}: key is required to choose one of the arrays x, y"):
            read_matrix(path)
        with pytest.raises(ValueError, match=f"a{path.suffix}: key must be one of x, y, got 'z'"):
            read_matrix(path, "z")

    def test_key_is_refused_for_single_arrays(self, tmp_path: Path) -> None:
        for suffix in (".npy", ".csv"):
            with pytest.raises(ValueError, match=r"key is only supported .* got 'x'"):
                read_matrix(write(tmp_path / f"a{suffix}", WHOLE), "x")

    def test_an_archive_may_be_empty(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz")
        with pytest.raises(ValueError, match="at least one array, got none"):
            read_matrix(tmp_path / "a.npz")


def test_sparse_archives_are_refused(tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "a.npz", sparse.eye_array(3).tocsr())
    with pytest.raises(ValueError, match=r"a\.npz: the matrix must be dense, got a SciPy sparse matrix"):
        read_matrix(tmp_path / "a.npz")


class TestMatlab:
    def test_newest_version_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b"\0" * 600)
        with pytest.raises(ValueError, match=r"a\.mat: .*version 7 or older, got 7\.3; save it with"):
            read_matrix(tmp_path / "a.mat")

    @pytest.mark.parametrize("value", [{"field": 1}, np.array(["text"]), sparse.eye_array(3).tocsc(), 1j])
    def test_other_variables_are_refused(self, tmp_path: Path, value: Any) -> None:
        savemat(tmp_path / "a.mat", {"x": value})
        with pytest.raises(ValueError, match=r"a\.mat: the array must hold real numbers"):
            read_matrix(tmp_path / "a.mat")

    def test_scipy_is_required(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "a.mat", WHOLE)
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        with pytest.raises(ImportError, match=r'pip install "dop_lightning\[matlab\]"'):
            read_matrix(path)


class TestTables:
    @pytest.mark.parametrize(
        "text",
        [
            "1,2\n3,4\n",
            "1;2\r\n3;4\r\n",
            "1\t2\n3\t4",
            "  1   2\n3 4.0\n\n",
            "1, 2\n3 ,4",
            "\ufeff1,2\n3,4",
            "# by numpy.savetxt\n#a b\n1 2\n3 4\n",
            "a,b\n1,2\n3,4\n",
            "x,1,2\ny,3,4\n",
            '"temperature; °C","b, c"\n"1","2"\n3,4\n',
            'name,a,b\n"x, 1",1,2\n"y; 2",3,4\n',
            "a b\nx 1 2\ny 3 4\n",
            "a b\n1 1 2\n2 3 4\n",
            ",0,1\n0,1,2\n1,3,4\n",
            ",a,b\n10,1,2\n20,3,4\n",
            ",2019,2020\nx,1,2\ny,3,4\n",
            '"","V1","V2"\n"1",1,2\n"2",3,4\n',
        ],
    )
    def test_forms_of_one_matrix(self, tmp_path: Path, text: str) -> None:
        matrix, mask, _ = read_matrix(table(tmp_path, text))
        assert mask is None
        assert matrix.tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("text", ["1,\n,4", "1,nan\nNaN,4", "1;NA\n;4", "a,b\n1,\n,4\n"])
    def test_empty_cells_are_missing(self, tmp_path: Path, text: str) -> None:
        matrix, mask, _ = read_matrix(table(tmp_path, text))
        assert mask is not None
        assert matrix.tolist() == [[1, 0], [0, 4]]
        assert mask.tolist() == [[True, False], [False, True]]

    def test_missing_corner_is_not_a_header(self, tmp_path: Path) -> None:
        assert read_matrix(table(tmp_path, ",2,3\n5,1,7\n"))[0].tolist() == [[0, 2, 3], [5, 1, 7]]

    def test_one_column_with_and_without_header(self, tmp_path: Path) -> None:
        assert read_matrix(table(tmp_path, "1\n2\n3"))[0].tolist() == [[1], [2], [3]]
        assert read_matrix(table(tmp_path, "height\n1\n2\n"))[0].tolist() == [[1], [2]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1,2\n3,x4\n", "got 'x4' in row 2, column 2"),
            ("1,x\n3,4\n", "got 'x' in row 1, column 2"),
            ("a,b\n1,2\nc,d\n", "got 'c' in row 3, column 1"),
            ("1,2\n3,1_0\n", "got '1_0'"),
            ("1,2\n3,1+2j\n", r"got '1\+2j'"),
            ('1,"2,5"\n3,"4,5"\n', "got '2,5' in row 1, column 2; use a decimal point"),
            ("1;2,5\n3;4.5\n", "decimal mark is unclear, got '2,5' and '4.5'"),
            ("1\t2,500\n3\t4,500\n", "decimal mark is unclear, got '2,500'"),
            ("a,day\n1,2020-01-31\n2,2020-02-01\n", "got the date '2020-01-31' in column 'day', row 2.*--index day"),
            ("1,2,3\n4,5\n", "equal lengths, got 3 cells in row 1 and 2"),
            ("a,b,c\n1,2\n", "equal lengths, got 3 cells in row 1 and 2"),
            ("text\n", "got 'text'"),
            ("# nothing\n\n", "at least one row"),
            ("1,1e999\n", "finite.*got inf in row 1, column 2"),
        ],
    )
    def test_mistakes_are_reported_with_their_position(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=rf"a\.csv: .*{message}"):
            read_matrix(table(tmp_path, text))

    def test_decimal_commas(self, tmp_path: Path) -> None:
        matrix, mask, labels = read_matrix(table(tmp_path, "a;b\n1,5;2\n2,5;n/a\n"))
        assert matrix.tolist() == [[1.5, 2], [2.5, 0]]
        assert mask is not None
        assert labels is not None
        write_table(tmp_path / "b.csv", np.array([[1.5, 2], [0.25, 3]]), labels)
        assert (tmp_path / "b.csv").read_text() == "a;b\n1,5;2\n0,25;3\n"

    def test_a_first_column_of_missing_values_is_data(self, tmp_path: Path) -> None:
        matrix, mask, _ = read_matrix(table(tmp_path, "a,b\nn/a,1\nN/A,2\n"))
        assert matrix.tolist() == [[0, 1], [0, 2]]
        assert mask is not None

    def test_header_may_contain_numbers(self, tmp_path: Path) -> None:
        assert read_matrix(table(tmp_path, "id,2019,b\nx,1,2\ny,3,4\n"))[0].tolist() == [[1, 2], [3, 4]]

    def test_index_columns_are_labels(self, tmp_path: Path) -> None:
        path = table(tmp_path, "a,year,b,day\n1,2019,2,2020-01-31\n3,2020,4,2020-02-01\n")
        matrix, _, labels = read_matrix(path, index=["year", "day"])
        assert matrix.tolist() == [[1, 2], [3, 4]]
        assert labels is not None
        assert labels.header == [["year", "day", "a", "b"]]
        assert labels.beside == [["2019", "2020-01-31"], ["2020", "2020-02-01"]]
        with pytest.raises(ValueError, match=r"index must name columns of the header a, year, b, day, .* got 'month'"):
            read_matrix(path, index=["month"])
        with pytest.raises(ValueError, match="index is only supported for tables"):
            read_matrix(write(tmp_path / "a.npy", WHOLE), index=["year"])

    def test_compressed(self, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
            file.write("a,b\n1,2\n3,4\n")
        assert read_matrix(tmp_path / "a.csv.gz")[0].tolist() == [[1, 2], [3, 4]]

    def test_other_encodings_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a\.csv: .*UTF-8"):
            read_matrix(table(tmp_path, "1,2\n", encoding="utf-16"))


def test_matrices_are_found_without_samples(tmp_path: Path) -> None:
    for name in ("b.csv", "a.npy", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files(str(tmp_path), MATRIX_SUFFIXES)] == ["a.npy", "b.csv"]
    with pytest.raises(ValueError, match=r"camera: no such file or folder; .*\*\.npy$"):
        find_files("camera", MATRIX_SUFFIXES)
