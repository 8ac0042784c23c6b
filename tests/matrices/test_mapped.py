"""Matrices that are read and written in pieces."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dop_lightning.cli.main import main
from dop_lightning.engine.projections import AlternatingProjections, Recovery
from dop_lightning.matrices import mapped
from dop_lightning.matrices.distributed import PROGRESS
from dop_lightning.matrices.mapped import separate_mapped
from dop_lightning.matrices.mapped_folder import REJECTED
from dop_lightning.matrices.storage.formats import open_matrix
from dop_lightning.matrices.storage.places import Place
from dop_lightning.problems.problem import Problem
from tests.engine.projections.builders import corrupted, low_rank, problem, relative_error
from tests.foundation.test_folder_lock import HOLDS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", problem().observation.numpy())
    return tmp_path / "a.npy"


def parts(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    low, sparse = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("recovered", "corruption"))
    return low, sparse


def test_result_equals_that_of_the_matrix_in_memory(file: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = separate_mapped(file, tmp_path / "out", AlternatingProjections(), say=lines.append)
    low, sparse = parts(tmp_path / "out")
    given = problem()
    assert relative_error(low, given.truth) < 2e-6
    assert relative_error(low + sparse, given.observation) < 2e-5
    inside = AlternatingProjections().begin(Problem("a", given.observation, seed=0))
    while inside.progress.phase != "ended":
        inside.step()
    assert torch.equal(inside.parts()[0], low)
    assert result["report"] == {"method": "projections", "rank": 3, "certificate": "exact"}
    assert len([line for line in lines if "pass " in line]) == result["iterations"]
    assert result["corruption_density"] == pytest.approx(0.1, abs=0.02)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "corruption.npy",
        "recovered.npy",
        "result.json",
    ]


@pytest.mark.parametrize("shape", [(60, 400), (400, 60)])
def test_missing_entries_are_nan_and_any_shape_works(tmp_path: Path, shape: tuple[int, int]) -> None:
    L = low_rank(*shape, 2, dtype=torch.float64)
    D = corrupted(L, 0.1)
    missing = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.2
    D[missing] = torch.nan
    np.save(tmp_path / "a.npy", D.numpy())
    separate_mapped(tmp_path / "a.npy", tmp_path / "out", AlternatingProjections(), say=lambda _: None)
    low, sparse = parts(tmp_path / "out")
    assert low.dtype == torch.float64
    assert relative_error(low, L) < 1e-5
    assert not sparse[missing].any()


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_an_interruption_is_resumed_with_the_same_bits(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    separate_mapped(file, tmp_path / "whole", AlternatingProjections(), say=lambda _: None)
    step = Recovery.step

    def interrupted(recovery: Recovery) -> None:
        if recovery.steps_done == stop:
            recovery.progress.threshold = 0.0  # in the middle of a step
            raise KeyboardInterrupt
        step(recovery)

    monkeypatch.setattr(Recovery, "step", interrupted)
    out, lines = tmp_path / "out", list[str]()
    with pytest.raises(KeyboardInterrupt):
        separate_mapped(file, out, AlternatingProjections(), say=lines.append)
    assert f"stopped after {stop} passes; run the same command to resume" in lines[-1]
    assert [path.name for path in out.iterdir()] == [PROGRESS]
    monkeypatch.setattr(Recovery, "step", step)
    with pytest.raises(ValueError, match=r"another separation \(rank differ\)"):
        separate_mapped(file, out, AlternatingProjections(rank=7), say=lambda _: None)
    result = separate_mapped(file, out, AlternatingProjections(), say=lines.append)
    assert f"resuming after {stop} passes" in " ".join(lines)
    whole = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["iterations"] == whole["iterations"]
    for one, other in zip(parts(out), parts(tmp_path / "whole"), strict=True):
        assert torch.equal(one, other)
    lines.clear()
    separate_mapped(file, out, AlternatingProjections(), say=lines.append)
    assert lines == [f"a.npy: already separated in {out}"]
    for name in ("corruption.npy", "result.json"):
        before = parts(out)
        content = bytearray((out / name).read_bytes())
        content[len(content) // 2] ^= 1
        (out / name).write_bytes(content)
        lines.clear()
        separate_mapped(file, out, AlternatingProjections(), say=lines.append)
        assert lines[0].startswith(f"{out / name}: ")
        assert lines[0].endswith("; separating again")
        if name == "result.json":
            assert all(torch.equal(one, other) for one, other in zip(parts(out), before, strict=True))


@pytest.mark.parametrize("name", ["cut", "complex", "text", "cube", "infinite", "missing"])
def test_files_that_cannot_be_read_in_pieces_are_reported(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.npy"
    arrays = {
        "complex": np.ones((80, 80), dtype=np.complex64),
        "text": np.full((80, 80), "a"),
        "cube": np.ones((8, 8, 8), dtype=np.float32),
        "infinite": np.full((80, 80), np.inf, dtype=np.float32),
        "missing": np.full((80, 80), np.nan, dtype=np.float32),
    }
    np.save(file, arrays.get(name, np.ones((80, 80), dtype=np.float32)))
    if name == "cut":
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"a\.npy: "):
        separate_mapped(file, tmp_path / "out", AlternatingProjections(), say=lambda _: None)


def test_a_file_is_mapped_and_not_read(file: Path) -> None:
    mapped = open_matrix(Place(file))
    changed = np.load(file, mmap_mode="r+")
    changed[3, 4] = 77.0
    changed.flush()
    assert mapped[3, 4] == 77.0


def test_an_interruption_of_writing_repeats_no_pass(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    separate_mapped(file, tmp_path / "whole", AlternatingProjections(), say=lambda _: None)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            separate_mapped(file, out, AlternatingProjections(), say=lambda _: None)
    monkeypatch.setattr(Recovery, "step", lambda _: pytest.fail("the passes are repeated"))
    separate_mapped(file, out, AlternatingProjections(), say=lambda _: None)
    for one, other in zip(parts(out), parts(tmp_path / "whole"), strict=True):
        assert torch.equal(one, other)


def test_the_command_reads_large_matrices_in_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = problem(600, 500, 4)
    np.save(tmp_path / "a.npy", given.observation.numpy())
    out = tmp_path / "out"
    command = ["separate", str(tmp_path / "a.npy"), "--out", str(out), "--max-memory", "2M"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "a.npy: pass 1, rank 4" in printed.err
    assert "a: alternating projections, rank 4; hidden entries are predicted exactly" in printed.err
    assert relative_error(parts(out / "a")[0], given.truth) < 2e-6


def test_command_gives_advice_if_projections_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32))
    command = ["separate", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), "--max-memory", "100K"]
    assert main(command) != 0
    assert "DOP requires the matrix in memory, so raise --max-memory" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out" / "a").iterdir()] == [REJECTED]


def test_the_number_of_passes_is_refused_by_the_name_of_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.ones((300, 200)))
    command = ["separate", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), "--iterations", "0"]
    for how in (["--max-memory", "100K"], ["--devices", "2"]):
        assert main([*command, *how]) != 0
        assert "iterations must be a whole number of at least 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_rejection_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32))
    out = tmp_path / "out"
    command = ["separate", str(tmp_path / "a.npy"), "--out", str(out), "--max-memory", "100K"]
    assert main(command) != 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Recovery, "step", lambda _: pytest.fail("the passes are repeated"))
        assert main(command) != 0
    said = capsys.readouterr().err
    assert "were not confirmed in an earlier run, after " in said
    assert "raise --max-memory, or remove" in said
    assert "pass 1" not in said
    assert main([*command, "--seed", "1"]) != 0
    assert "pass 1" in capsys.readouterr().err, "other settings start again"
    (out / "a" / REJECTED).write_text("{}")
    assert main(command) != 0
    assert "damaged" in capsys.readouterr().err
    assert main([*command[:4], "--iterations", "5"]) == 0, "the matrix in memory goes into the same folder"


def test_files_of_any_order_and_type_are_mapped(tmp_path: Path) -> None:
    given = problem(200, 150, 2)
    np.save(tmp_path / "f.npy", np.asfortranarray(given.observation.numpy()))
    small = ["--max-memory", "1K"]
    assert main(["separate", str(tmp_path / "f.npy"), "--out", str(tmp_path / "f"), *small]) == 0
    assert relative_error(parts(tmp_path / "f" / "f")[0], given.truth) < 2e-6
    scaled = given.observation.mul(1000).round().numpy()
    for kind in ("<f4", ">f4", "<i4", ">i2", ">f8"):
        np.save(tmp_path / "i.npy", scaled.astype(kind))
        assert main(["separate", str(tmp_path / "i.npy"), "--out", str(tmp_path / kind), *small]) == 0
        low = parts(tmp_path / kind / "i")[0]
        assert low.dtype == (torch.float64 if kind == ">f8" else torch.float32)
        if low.dtype == torch.float32:
            assert torch.equal(low, parts(tmp_path / "<f4" / "i")[0])


def test_one_failure_does_not_stop_the_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(200, 100)))
    np.save(tmp_path / "good.npy", problem().observation.numpy())
    files = [str(tmp_path / f"{name}.npy") for name in ("noise", "good")]
    assert main(["separate", *files, "--out", str(tmp_path / "out"), "--max-memory", "1K"]) != 0
    assert "noise.npy: alternating projections are not confirmed" in capsys.readouterr().err
    assert (tmp_path / "out" / "good" / "result.json").is_file()
    assert main(["separate", files[1], "--out", str(tmp_path / "out")]) != 0
    assert "holds the parts of a matrix that was read in pieces" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--device", "gpu"), ("--truth", "7"), ("--key", "x")])
def test_options_without_meaning_are_refused(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    command = ["separate", str(file), "--out", str(tmp_path / "out"), "--max-memory", "1K", option, value]
    assert main(command) != 0
    assert option in capsys.readouterr().err


def test_passes_are_bounded_and_a_larger_bound_continues(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finished after 5 passes; raise --iterations"):
        separate_mapped(file, tmp_path / "out", AlternatingProjections(), say=lambda _: None, passes=5)
    lines: list[str] = []
    separate_mapped(file, tmp_path / "out", AlternatingProjections(), say=lines.append)
    assert "resuming after 5 passes" in lines[0]


def test_results_are_in_tables_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, small = tmp_path / "out", ["--max-memory", "1K"]
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", problem().observation.numpy())
        assert main(["separate", str(tmp_path / f"{name}.npy"), "--out", str(out), *small]) == 0
        assert f"\n{name}        stable" in capsys.readouterr().out
    (out / "results.csv").unlink()
    assert main(["table", str(out), "--csv", "-"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["problem"], row["status"], row["rank"]) for row in rows] == [
        ("a", "stable", "3"),
        ("b", "stable", "3"),
    ]
    assert main(["table", str(out), "--each"]) == 0
    assert main(["report", str(out)]) == 0
    assert "stable" in (out / "report.html").read_text(encoding="utf-8")
    assert main(["status", str(out)]) == 0
    assert "2 problems: 2 stable" in capsys.readouterr().out


def test_a_folder_holds_one_kind_of_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", problem(60, 50, 1).observation.numpy())
    np.save(tmp_path / "b.npy", problem(60, 50, 1).observation.numpy())
    out = str(tmp_path / "out")
    assert main(["separate", str(tmp_path / "a.npy"), "--out", out, "--iterations", "2"]) == 0
    assert main(["separate", str(tmp_path / "b.npy"), "--out", out, "--max-memory", "1K"]) != 0
    assert "holds a run of matrices that were read into memory" in capsys.readouterr().err
    assert not (tmp_path / "out" / "b").exists()


def test_folder_in_use_by_another_process_is_refused(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "out"), "first"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with pytest.raises(ValueError, match="out: another process is using this folder"):
            separate_mapped(file, tmp_path / "out", AlternatingProjections(), say=lambda _: None)
        process.communicate("")
