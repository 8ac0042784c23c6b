"""Matrices in HDF5 files and Zarr stores."""

import builtins
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dop_lightning.cli.main import main
from dop_lightning.engine.projections import AlternatingProjections, Recovery
from dop_lightning.matrices.arrays import read_matrix
from dop_lightning.matrices.distributed import PROGRESS
from dop_lightning.matrices.mapped import separate_mapped
from dop_lightning.matrices.storage.formats import open_matrix, write_matrix
from dop_lightning.matrices.storage.places import HDF5_SUFFIXES, Place, locate
from tests.engine.projections.builders import corrupted, low_rank, problem
from tests.matrices.storage.builders import load, store

STORES = (".h5", ".hdf5", ".zarr", ".zarr.zip")


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The parts of a matrix with gaps, of a ``.npy``."""
    folder = tmp_path_factory.mktemp("npy")
    separate_mapped(store(folder / "a.npy", gaps()), folder / "out", AlternatingProjections(), say=silent)
    return [load(folder / "out" / f"{name}.npy") for name in ("recovered", "corruption")]


def gaps() -> np.ndarray:
    D = corrupted(low_rank(300, 80, 2), 0.1)
    D[torch.rand(D.shape, generator=torch.Generator().manual_seed(3)) < 0.1] = torch.nan
    return D.numpy()


@pytest.mark.parametrize("suffix", STORES)
def test_results_equal_those_of_a_mapped_array_in_the_format_of_the_matrix(
    tmp_path: Path, expected: list[np.ndarray], suffix: str
) -> None:
    file = store(tmp_path / f"a{suffix}", gaps(), chunks=(32, 50))
    separate_mapped(file, tmp_path / "out", AlternatingProjections(), say=silent)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"corruption{suffix}", f"recovered{suffix}", "result.json"]
    for name, part in zip(("recovered", "corruption"), expected, strict=True):
        np.testing.assert_array_equal(load(tmp_path / "out" / f"{name}{suffix}"), part)
    again = open_matrix(Place(tmp_path / "out" / f"recovered{suffix}"))
    np.testing.assert_array_equal(again[0:300].numpy(), expected[0])


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_signal_stops_and_the_same_command_resumes(
    tmp_path: Path, expected: list[np.ndarray], suffix: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    store(tmp_path / f"a{suffix}", gaps(), name="runs/x")
    command = ["separate", f"{tmp_path / f'a{suffix}'}::/runs/x", "--out", str(tmp_path / "out"), "--max-memory", "1K"]
    step = Recovery.step

    def interrupted(recovery: Recovery) -> None:
        step(recovery)
        if recovery.steps_done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Recovery, "step", interrupted)
        assert main(command) == 130
    folder = tmp_path / "out" / "a-runs-x"
    assert [path.name for path in folder.iterdir()] == [PROGRESS]
    assert main(command) == 0
    assert "resuming after" in capsys.readouterr().err
    np.testing.assert_array_equal(load(folder / f"recovered{suffix}"), expected[0])
    assert main(command) == 0
    assert "already separated" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".npy", *STORES])
def test_failed_write_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    store(tmp_path / f"skip{suffix}", array)
    with write_matrix(path, (4, 3), array.dtype) as append:
        append(array[:1])
        append(array[1:])
    before = sorted(tmp_path.iterdir())

    def interrupted() -> None:
        with write_matrix(path, (4, 3), array.dtype) as append:
            append(array[:2] + 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(tmp_path.iterdir()) == before
    np.testing.assert_array_equal(load(path), array)
    with write_matrix(path, (4, 3), array.dtype) as append:
        append(array + 1)
    np.testing.assert_array_equal(load(path), array + 1)


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_small_matrices_are_read_into_memory(tmp_path: Path, suffix: str) -> None:
    file = store(tmp_path / f"a{suffix}", gaps(), name="x/y")
    values, mask, _ = read_matrix(file, "x/y")
    assert mask is not None
    assert torch.equal(mask, ~torch.isnan(torch.from_numpy(gaps())))
    out = tmp_path / "out"
    assert main(["separate", f"{file}::x/y", "--out", str(out), "--method", "projections", "--iterations", "3"]) == 0
    assert np.load(out / "a" / "recovered.npy").shape == values.shape
    assert main(["separate", str(file), "--out", str(out / "other"), "--method", "dop", "--iterations", "3"]) == 0


@pytest.mark.parametrize("suffix", STORES)
@pytest.mark.parametrize("kind", [">f8", "<i4", "bool"])
def test_other_types_are_converted(tmp_path: Path, suffix: str, kind: str) -> None:
    array = (np.random.default_rng(0).normal(size=(40, 5)) * 100).astype(kind)
    stored = open_matrix(Place(store(tmp_path / f"a{suffix}", array)))
    assert stored.dtype == (torch.float64 if kind == ">f8" else torch.float32)
    np.testing.assert_array_equal(stored[0:40].numpy(), array.astype(np.float64 if kind == ">f8" else np.float32))


def test_an_hdf5_array_has_every_name_that_links_to_it(tmp_path: Path) -> None:
    file = store(tmp_path / "a.h5", np.ones((50, 40)), "x/one")
    h5py = pytest.importorskip("h5py")
    with h5py.File(file, "a") as opened:
        opened["x/two"] = opened["x/one"]
        opened["soft"] = h5py.SoftLink("/x/one")
        opened["broken"] = h5py.SoftLink("/none")
    for name in ("x/one", "x/two", "soft"):
        assert open_matrix(Place(file, name)).shape == (50, 40)
    assert open_matrix(Place(file)).shape == (50, 40), "one matrix, whatever its names"
    for name in ("broken", "x"):
        with pytest.raises(ValueError, match=f"has no array /{name}; available arrays: "):
            open_matrix(Place(file, name))


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_several_arrays_are_listed(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"a{suffix}"
    if suffix == ".h5":
        for name, shape in (("x/one", (50, 40)), ("two", (60, 45)), ("cube", (2, 2, 2))):
            store(file, np.ones(shape), name)
    else:
        group = pytest.importorskip("zarr").open_group(file)
        for name, shape in (("x/one", (50, 40)), ("two", (60, 45)), ("cube", (2, 2, 2))):
            group.create_array(name, data=np.ones(shape))
    with pytest.raises(ValueError, match=r"contains several matrices; choose one, for example a\.\w+::/") as error:
        open_matrix(Place(file))
    assert all(part in str(error.value) for part in ("/x/one 50×40", "/two 60×45", "/cube 2×2×2"))
    with pytest.raises(ValueError, match=r"has no array /three; available arrays: .*/two 60×45"):
        open_matrix(Place(file, "three"))
    with pytest.raises(ValueError, match=r"must be a matrix .* got shape \(2, 2, 2\)"):
        open_matrix(Place(file, "cube"))
    assert open_matrix(locate(f"{file}::/x/one")).shape == (50, 40)
    for command in (["separate", str(file)], ["separate", f"{file}::/cube", "--max-memory", "1K"]):
        assert main([*command, "--out", str(tmp_path / "out")]) != 0
        assert "a." in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", STORES)
def test_damaged_and_missing_files_are_named(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("h5py" if suffix in HDF5_SUFFIXES else "zarr")
    file = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError, match=f"a{suffix}"):
        open_matrix(Place(file))
    if suffix == ".zarr":
        file.mkdir()
    else:
        file.write_bytes(b"no such file" * 40)
    with pytest.raises(ValueError, match=f"a{suffix}: must be .* got another"):
        open_matrix(Place(file))


@pytest.mark.parametrize(("suffix", "library"), [(".h5", "h5py"), (".zarr", "zarr")])
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, suffix: str, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / f"a{suffix}", np.ones((3, 3)))
    imported = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == library:
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["separate", str(tmp_path / f"a{suffix}"), "--out", str(tmp_path / "out")]) != 0
    extra = "hdf5" if library == "h5py" else "zarr"
    assert f'require {library}: pip install "dop_lightning[{extra}]"' in capsys.readouterr().err


def test_files_with_different_arrays_are_distinguished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = problem(200, 100, 2).observation.numpy()
    for name in ("one", "two"):
        store(tmp_path / "a.h5", given, name)
    files = [f"{tmp_path / 'a.h5'}::{name}" for name in ("one", "two")]
    assert main(["separate", *files, "--out", str(tmp_path / "out"), "--max-memory", "1K"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "a-one",
        "a-two",
        "checkpoints",
    ]
    assert main(["separate", *files, "--out", str(tmp_path / "memory")]) != 0
    assert "must name one array, by --key or after ::" in capsys.readouterr().err


def test_large_chunks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dop_lightning.matrices.storage import source

    file = store(tmp_path / "a.h5", gaps(), chunks=(300, 80))
    monkeypatch.setattr(source, "BLOCK_BYTES", 2**14)
    lines: list[str] = []
    separate_mapped(file, tmp_path / "out", AlternatingProjections(), say=lines.append)
    assert "decoded 6 times per pass" in lines[0]
