"""``dop separate``: matrices and scenes into their parts."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dop_lightning.cli import hints
from dop_lightning.cli.main import main
from dop_lightning.lightning.data import scenes
from dop_lightning.matrices.alpha_search import AlphaChoice
from dop_lightning.matrices.scenes import find_frames
from dop_lightning.matrices.scenes.layers import Layers
from dop_lightning.matrices.tables import Table, read_table
from tests.engine.projections.builders import problem
from tests.matrices.scenes.builders import scene, write_folder, write_video

LOBBY = Path(__file__).parents[3] / "shared" / "data" / "video" / "lobby.avi"


def matrix(path: Path, seed: int = 0, unit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clean = np.outer(rng.normal(size=60), rng.normal(size=40)) * unit
    observed = clean + (rng.random((60, 40)) < 0.05) * rng.normal(0, 10, (60, 40)) * unit
    np.save(path, observed)
    return clean, observed


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e5])
def test_matrix_is_separated_in_any_units(tmp_path: Path, capsys, unit: float) -> None:
    clean, observed = matrix(tmp_path / "a.npy", unit=unit)
    out = tmp_path / "parts"
    assert main(["separate", str(tmp_path / "a.npy"), "--out", str(out)]) == 0
    low_rank, sparse = (np.load(out / "a" / f"{name}.npy") for name in ("recovered", "corruption"))
    assert np.linalg.norm(low_rank - clean) < 0.02 * np.linalg.norm(clean)
    np.testing.assert_allclose(low_rank + sparse, observed, atol=1e-2 * unit)
    assert "a: double over-parameterization, alpha " in capsys.readouterr().err
    result = json.loads((out / "a" / "result.json").read_text())
    assert result["status"] == "done"
    assert result["iterations"] < 500


def test_same_command_resumes_with_the_chosen_alphas(tmp_path: Path, capsys) -> None:
    for seed, name in enumerate("ab"):
        matrix(tmp_path / f"{name}.npy", seed)
    command = [
        "separate",
        str(tmp_path / "a.npy"),
        str(tmp_path / "b.npy"),
        "--out",
        str(tmp_path / "parts"),
        "--method",
        "dop",
    ]
    assert main(command) == 0
    alphas = yaml.safe_load((tmp_path / "parts" / "config.yaml").read_text())["model"]["alpha"]
    assert len(alphas) == 2
    capsys.readouterr()
    assert main(command) == 0
    assert "held-out" not in capsys.readouterr().err


@pytest.mark.parametrize("method", ["convex", "projections", "dop", "auto"])
def test_a_run_is_resumed_by_its_method_without_naming_it(tmp_path: Path, capsys, method: str) -> None:
    np.save(tmp_path / "a.npy", problem(120, 90, 2).observation.numpy())
    command = ["separate", str(tmp_path / "a.npy"), "--out"]
    assert main([*command, str(tmp_path / "whole"), "--method", method, "--iterations", "60"]) == 0
    out = str(tmp_path / "out")
    assert main([*command, out, "--method", method, "--iterations", "4"]) == 0
    capsys.readouterr()
    assert main([*command, out, "--iterations", "60"]) == 0
    assert "Resuming the run" in capsys.readouterr().err
    whole, resumed = (json.loads((tmp_path / name / "a" / "result.json").read_text()) for name in ("whole", "out"))
    assert resumed["iterations"] == whole["iterations"]
    assert resumed.get("report", {}).get("method") == whole.get("report", {}).get("method")
    if method == "projections":
        assert main([*command, out, "--alpha", "3"]) != 0
        assert "--alpha does not apply to --method projections" in capsys.readouterr().err


def test_adding_matrices_does_not_change_earlier_ones(tmp_path: Path, capsys) -> None:
    for seed, name in enumerate("abc"):
        matrix(tmp_path / f"{name}.npy", seed, unit=10.0**seed)
    files, out = {name: str(tmp_path / f"{name}.npy") for name in "abc"}, tmp_path / "parts"
    assert main(["separate", files["b"], "--out", str(out), "--method", "dop"]) == 0
    before = {path: path.read_bytes() for path in (out / "b").iterdir()}
    for asked, new in ((["a", "b"], "a"), (["a", "b", "c"], "c")):
        capsys.readouterr()
        assert main(["separate", *(files[name] for name in asked), "--out", str(out), "--method", "dop"]) == 0
        said = capsys.readouterr().err
        assert [line.partition(":")[0] for line in said.splitlines() if "held-out" in line] == [new]
    assert before == {path: path.read_bytes() for path in (out / "b").iterdir()}
    assert [json.loads((out / name / "result.json").read_text())["status"] for name in "ac"] == ["done"] * 2


def test_table_keeps_its_labels(tmp_path: Path) -> None:
    clean, observed = matrix(tmp_path / "a.npy")
    lines = ["day;" + ";".join(f"sensor {j}" for j in range(40))]
    lines += [f"day {i};" + ";".join(map(repr, row)) for i, row in enumerate(observed.tolist())]
    lines[3] = lines[3].rsplit(";", 1)[0] + ";"  # the last cell is missing
    (tmp_path / "table.csv").write_text("# made by hand\n" + "\n".join(lines) + "\n", encoding="utf-8")
    assert main(["separate", str(tmp_path / "table.csv"), "--out", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out" / "table"
    written = (folder / "recovered.csv").read_text(encoding="utf-8").splitlines()
    assert written[:2] == ["# made by hand", lines[0]]
    assert written[5].startswith("day 3;")
    np.testing.assert_allclose(
        read_table(folder / "recovered.csv").values, np.load(folder / "recovered.npy"), rtol=1e-6
    )
    np.testing.assert_allclose(
        read_table(folder / "corruption.csv").values, np.load(folder / "corruption.npy"), atol=1e-6
    )
    assert abs(np.load(folder / "recovered.npy")[2, 39] - clean[2, 39]) < 0.1


def test_a_table_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def counted(path: Path, index: Sequence[str] = ()) -> Table:
        names.append(path.name)
        return read_table(path, index)

    monkeypatch.setattr("dop_lightning.matrices.arrays.read_table", counted)
    for seed, name in enumerate(("a", "b", "truth")):
        np.savetxt(tmp_path / f"{name}.csv", matrix(tmp_path / "a.npy", seed)[0], delimiter=",")
    data, truth, out = [str(tmp_path / f"{name}.csv") for name in "ab"], str(tmp_path / "truth.csv"), tmp_path / "out"
    for _ in range(2):  # at the start, and when resumed
        assert main(["separate", *data, "--truth", truth, "--out", str(out), "--iterations", "25"]) == 0
        assert sorted(names) == ["a.csv", "b.csv", "truth.csv"]
        names.clear()


def test_a_table_that_changes_while_alpha_is_chosen_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    np.savetxt(tmp_path / "a.csv", matrix(tmp_path / "a.npy")[0], delimiter=",")

    def change(*_: object, **__: object) -> AlphaChoice:
        np.savetxt(tmp_path / "a.csv", 2 * matrix(tmp_path / "a.npy")[0], delimiter=",")
        return AlphaChoice(7.0, (), ())

    monkeypatch.setattr("dop_lightning.cli.configs.separate.choose_alpha", change)
    out = tmp_path / "out"
    assert main(["separate", str(tmp_path / "a.csv"), "--out", str(out), "--method", "dop"]) == 0
    both = sum(np.load(out / "a" / f"{name}.npy") for name in ("recovered", "corruption"))
    np.testing.assert_allclose(both, 2 * matrix(tmp_path / "a.npy")[0], atol=0.1)


@pytest.mark.parametrize("colour", [True, False])
def test_folder_of_frames_is_separated(tmp_path: Path, colour: bool) -> None:
    frames, backgrounds = scene(colour)
    write_folder(tmp_path / "room", frames)
    assert main(["separate", str(tmp_path / "room"), "--out", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out" / "room"
    found = find_frames(folder / "background")
    assert len(found) == len(frames)
    assert found.frame_name(2) == "frame2"
    pixels = np.stack(list(found)).transpose(0, 2, 3, 1).reshape(backgrounds.shape)
    assert np.abs(pixels.astype(float) - backgrounds).mean() < 1.5
    assert np.abs(pixels.astype(float) - backgrounds).max() < 40, "the background contains moving objects"
    moving = (
        np.abs(frames.astype(int) - backgrounds).max(axis=-1) > 100
        if colour
        else np.abs(frames.astype(int) - backgrounds) > 100
    )
    front = np.stack(list(find_frames(folder / "foreground"))).max(axis=1)
    assert front[moving].mean() > 10 * max(1.0, front[~moving].mean())
    masks = np.stack(list(find_frames(folder / "mask")))[:, 0]
    assert set(np.unique(masks)) == {0, 255}
    assert 2 * (masks[moving] == 255).sum() > 0.9 * (moving.sum() + (masks == 255).sum())
    for name in ("background", "foreground", "mask", "comparison"):
        assert len(find_frames(folder / f"{name}.mp4")) == len(frames)
    result = json.loads((folder / "result.json").read_text())
    assert result["mask_share"] == pytest.approx((masks == 255).mean(), abs=1e-6)
    assert 3 / 255 - 1e-6 <= result["mask_threshold"] < 0.05
    assert "mask_threshold,mask_share" in (tmp_path / "out" / "results.csv").read_text().splitlines()[0]
    assert (folder / "histogram.csv").is_file()
    assert main(["report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Black is clean" in page
    assert "Blue is negative" not in page
    for name in ("observation", "recovered", "corruption", "comparison"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.size[0] >= 32


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_while_a_scene_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, signals: int) -> None:
    write_folder(tmp_path / "room", scene()[0])
    monkeypatch.setattr("dop_lightning.matrices.scenes.layers.AT_ONCE", 20 * 20 * 32 * 3)
    whole = scenes.layers

    def interrupted(*arguments: Any) -> Iterator[Layers]:
        for number, part in enumerate(whole(*arguments)):
            yield part
            if number == 0:
                for _ in range(signals):
                    signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(scenes, "layers", interrupted)
    command = ["separate", str(tmp_path / "room"), "--out", str(tmp_path / "out"), "--iterations", "50"]
    assert main(command) == 130
    assert not (tmp_path / "out" / "room" / "result.json").exists()
    monkeypatch.setattr(scenes, "layers", whole)
    capsys.readouterr()
    assert main(command) == 0
    result = json.loads((tmp_path / "out" / "room" / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("done", 50)
    assert len(list((tmp_path / "out" / "room" / "mask").iterdir())) == 60
    assert len(find_frames(tmp_path / "out" / "room" / "mask.mp4")) == 60


def test_video_is_separated_from_a_sample(tmp_path: Path) -> None:
    frames, backgrounds = scene()
    video = write_video(tmp_path / "room.mp4", frames)
    assert 24 * frames[0].size == 45 * 1024  # of 60 frames
    assert main(["separate", str(video), "--out", str(tmp_path / "out"), "--no-pictures", "--max-memory", "45K"]) == 0
    folder = tmp_path / "out" / "room"
    assert not (folder / "background").exists()
    found = np.stack(list(find_frames(folder / "background.mp4"))).transpose(0, 2, 3, 1)
    assert np.abs(found.astype(float) - backgrounds).mean() < 5  # compressed twice
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["problems"][0]["shape"] == [frames[0].size, 24]


def test_grey_scenes_stored_in_colour_are_grey(tmp_path: Path) -> None:
    frames = scene(colour=False)[0]
    write_folder(tmp_path / "room", np.repeat(frames[..., None], 3, axis=-1))
    assert main(["separate", str(tmp_path / "room"), "--out", str(tmp_path / "out"), "--iterations", "50"]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["problems"][0]["shape"] == [frames[0].size, len(frames)]


@pytest.mark.skipif(not LOBBY.is_file(), reason="the video is not there")
def test_people_are_removed_from_the_lobby(tmp_path: Path) -> None:
    assert main(["separate", str(LOBBY), "--out", str(tmp_path / "out"), "--no-pictures"]) == 0
    folder = tmp_path / "out" / "lobby"
    frames, found = (
        np.stack(list(find_frames(path, grey=True))).astype(float) for path in (LOBBY, folder / "background.mp4")
    )
    median = np.median(frames, axis=0)
    persons = np.abs(frames - median) > 60
    assert persons.mean() > 0.02
    assert np.abs(found - median)[persons].mean() < 8
    mask = np.stack(list(find_frames(folder / "mask.mp4", grey=True))) > 127
    assert mask[persons].mean() > 0.97
    assert mask[~persons].mean() < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npy"], "none.npy: no such file"),
        (["none.mp4"], "none.mp4: no such file"),
        (["a.npy", "room"], "must not mix matrices and scenes, got the scenes room"),
        (["a.npy", "--grey"], "--grey does not apply to matrices"),
        (["room", "--key", "x"], "--key does not apply to scenes, got 'x'"),
        (["a.npy", "--rank", "41"], "rank must be at most 40, the smaller side of a, got 41"),
        (["a.npy", "--alpha", "0"], "alpha must be"),
        (["a.npy", "--iterations", "0"], "iterations must be"),
        (["a.npy", "--device", "tpu"], "device must be one of"),
        (["huge.npy"], "huge: the largest entry must be between"),
        (["tiny.npy"], "tiny: the largest entry must be between"),
        (["room", "--rank", "17"], "rank must be at most 16 for scenes"),
        (["room", "--max-memory", "1K"], "memory must be at least"),
        (["room", "--max-memory", "much"], "memory must be"),
        (["text.avi"], "text.avi: must be a video"),
    ],
)
def test_mistakes_give_one_line_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    matrix(tmp_path / "a.npy")
    matrix(tmp_path / "huge.npy", unit=1e200)
    matrix(tmp_path / "tiny.npy", unit=1e-200)
    (tmp_path / "text.avi").write_text("hello")
    write_folder(tmp_path / "room", scene()[0][:3])
    assert main(["separate", *arguments, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_later_errors_are_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "data").mkdir()
    matrix(tmp_path / "data" / "a.npy")
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(hints, "look", lambda: hints.Gpus(torch="2"))
    for data, out, options, message in (
        ("data/a.npy", "file", [], "file: the folder of a run must be a folder"),
        ("data", "data", [], "--out must differ from the folder of DATA"),
        ("data/a.npy", "out", ["--device", "cuda"], "no GPU is available"),
    ):
        assert main(["separate", str(tmp_path / data), "--out", str(tmp_path / out), *options]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said.strip().splitlines()) == 1


def test_help_needs_no_torch() -> None:
    code = """
import sys
from dop_lightning.cli.main import main
try:
    main(['separate', '--help'])
except SystemExit:
    pass
assert 'torch' not in sys.modules
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--alpha" in said
    assert "chosen by" in said
    assert "mask" in said


def test_index_columns_by_name_and_one_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "a.tsv", tmp_path / "out"
    data.write_text("a\tyear\n1,5\t2019\n2,5\t2020\n4,5\t2021\n")
    assert (
        main(["separate", str(data), "--index", "year", "--out", str(out), "--iterations", "25", "--alpha", "2"]) == 0
    )
    printed = capsys.readouterr()
    assert "a matrix of shape 3 × 1 always has rank 1" in printed.out + printed.err
    rows = (out / "a" / "recovered.tsv").read_text().splitlines()
    assert rows[0] == "year\ta"
    assert [row.split("\t")[0] for row in rows[1:]] == ["2019", "2020", "2021"]
