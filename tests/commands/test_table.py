"""``dop table``."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest


def write_run(run: Path, statuses: dict[str, str | None], axes: dict[str, str] | None = None, **scores: Any) -> None:
    """A run as its files: problems with their statuses; ``None`` has no result."""
    run.mkdir(parents=True)
    problems = [{"name": name} for name in statuses]
    (run / "manifest.json").write_text(json.dumps({"fingerprint": "x", "problems": problems}))
    if axes is not None:
        (run / "point.json").write_text(json.dumps({"axes": axes, "command": "dop fit", "digest": "x"}))
    for name, status in statuses.items():
        if status is None:
            continue
        result = {"problem": name, "attributes": {"image": "camera"}, "seed": 0, "alpha": 7.5, "status": status}
        (run / name).mkdir()
        (run / name / "result.json").write_text(json.dumps({**result, "iterations": 100, "seconds": 1.0, **scores}))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of two points that have ended, one that is at work and one that has not begun."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    names = ["rank-2_alpha-100", "rank-10_alpha-100", "rank-10_alpha-5", "rank-2_alpha-5"]
    axes = [dict(zip(("model.signal.init_args.rank", "model.alpha"), pair, strict=True))
            for pair in (("2", "100"), ("10", "100"), ("10", "5"), ("2", "5"))]  # fmt: skip
    write_run(out / names[0], {"a": "done", "b": "diverged"}, axes[0], psnr=20.0)
    write_run(out / names[1], {"a": "done"}, axes[1], psnr=30.0)
    write_run(out / names[2], {"a": "interrupted", "b": None, "c": None}, axes[2], psnr=10.0)
    (out / names[3]).mkdir()
    (out / names[3] / "point.json").write_text(json.dumps({"axes": axes[3], "command": "", "digest": ""}))
    (out / "sweep.json").write_text(json.dumps({"axes": {}, "points": [{"name": name} for name in names]}))
    return out


def test_one_run_has_its_own_table(tmp_path: Path, dop) -> None:
    write_run(tmp_path / "run", {"a": "done", "b": "stable"}, psnr=23.456)
    said = dop("table", str(tmp_path / "run"))
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines() == [
        "problem  status  iterations  seconds   PSNR",
        "a        done           100      1.0  23.46",
        "b        stable         100      1.0  23.46",
    ]


def test_a_sweep_has_a_column_an_axis_in_its_order(sweep: Path, dop) -> None:
    said = dop("table", "out")
    assert said.status == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0][:5] == ["run", "signal.rank", "alpha", "problem", "status"]
    assert [row[:5] for row in rows[1:]] == [
        ["rank-2_alpha-100", "2", "100", "a", "done"],
        ["rank-2_alpha-100", "2", "100", "b", "diverged"],
        ["rank-10_alpha-100", "10", "100", "a", "done"],
        ["rank-10_alpha-5", "10", "5", "a", "interrupted"],
    ]
    assert said.err.splitlines() == [
        "rank-10_alpha-5: 2 of 3 problems without a result, 1 of 3 problems interrupted",
        "rank-2_alpha-5: not begun",
    ]


def test_csv_has_all_columns(sweep: Path, dop) -> None:
    said = dop("table", "out", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert list(rows[0])[:6] == ["run", "model.signal.init_args.rank", "model.alpha", "problem", "image", "seed"]
    assert [(row["model.alpha"], row["alpha"], row["psnr"], row["ssim"]) for row in rows[1:]] == [
        ("100", "7.5", "20", ""),
        ("100", "7.5", "30", ""),
        ("5", "7.5", "10", ""),
    ]
    table = dop("table", "out").out
    assert dop("table", "out", "--csv", "all.csv").out == table
    assert Path("all.csv").read_text() == said.out


def test_markdown(tmp_path: Path, dop) -> None:
    write_run(tmp_path / "run", {"a|b": "done"}, psnr=23.456)
    assert dop("table", str(tmp_path / "run"), "--markdown").out.splitlines() == [
        "| problem | status | iterations | seconds | PSNR |",
        "| --- | --- | ---: | ---: | ---: |",
        "| a\\|b | done | 100 | 1.0 | 23.46 |",
    ]


def test_results_are_rebuilt_where_they_may_be(sweep: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    read_only = sweep / "rank-2_alpha-100"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != read_only and access(path, mode))
    said = dop("table", "out")
    assert said.status == 0
    assert len(said.out.splitlines()) == 5
    assert not (read_only / "results.csv").exists()
    assert len((sweep / "rank-10_alpha-100" / "results.csv").read_text().splitlines()) == 2


def test_runs_of_several_folders_are_named_by_their_paths_and_come_once(sweep: Path, dop) -> None:
    write_run(sweep.parent / "other", {"a": "done"})
    said = dop("table", "other", "out/rank-10_alpha-100", "out/rank-10_alpha-100", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [(row["run"], row["model.alpha"]) for row in rows] == [("other", ""), ("out/rank-10_alpha-100", "100")]


def test_runs_without_results(tmp_path: Path, dop) -> None:
    write_run(tmp_path / "run", {"a": None})
    said = dop("table", str(tmp_path / "run"))
    assert (said.status, said.out) == (0, "")
    assert said.err == f"{tmp_path / 'run'}: 1 of 1 problems without a result\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: RUN"),
        (["nowhere"], "nowhere: must be the folder of a run, or one that holds runs, got none"),
        (["empty"], "empty: holds no run, which has a manifest.json"),
        (["empty", "--csv", "-", "--markdown"], "--csv - and --markdown both print"),
        (["damaged"], "damaged/sweep.json: not a summary written by dop sweep"),
    ],
)
def test_a_mistake_gives_one_line(arguments: list[str], text: str, dop, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "sweep.json").write_text("{")
    said = dop("table", *arguments)
    assert said.status == 2
    assert said.err.startswith("dop table: error: ")
    assert said.err.count("\n") == 1
    assert text in said.err
