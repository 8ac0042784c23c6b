"""``dop table``."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest


def write_run(
    run: Path, statuses: dict[str, str | None], axes: dict[str, str] | None = None, seeds: int = 1, **scores: Any
) -> None:
    """A run as its files: problems with their statuses; ``None`` has no result. They take turns at the seeds."""
    run.mkdir(parents=True)
    seed_of = {name: k % seeds for k, name in enumerate(statuses)}
    problems = [{"name": name, "seed": seed_of[name], "attributes": {"image": "camera"}} for name in statuses]
    (run / "manifest.json").write_text(json.dumps({"fingerprint": "x", "problems": problems}))
    if axes is not None:
        (run / "point.json").write_text(json.dumps({"axes": axes, "command": "dop fit", "digest": "x"}))
    for name, status in statuses.items():
        if status is None:
            continue
        result = {
            "problem": name,
            "attributes": {"image": "camera"},
            "seed": seed_of[name],
            "alpha": 7.5,
            "status": status,
        }
        (run / name).mkdir()
        (run / name / "result.json").write_text(json.dumps({**result, "iterations": 100, "seconds": 1.0, **scores}))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of two finished points, a running one and a waiting one."""
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


def test_sweep_has_one_column_per_axis_in_order(sweep: Path, dop) -> None:
    said = dop("table", "out")
    assert said.status == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0][:5] == ["run", "signal.rank", "alpha", "problem", "status"]
    assert [row[:5] for row in rows[1:5]] == [
        ["rank-2_alpha-100", "2", "100", "a", "done"],
        ["rank-2_alpha-100", "2", "100", "b", "diverged"],
        ["rank-10_alpha-100", "10", "100", "a", "done"],
        ["rank-10_alpha-5", "10", "5", "a", "interrupted"],
    ]
    assert [row[-1] for row in rows[1:5]] == ["20.00", "20.00", "30.00*", "10.00"]
    assert " ".join(rows[-1]) == "* best method on the same problems"
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


def test_latex(sweep: Path, dop) -> None:
    said = dop("table", "out", "--latex")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[:5] == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lllllrrr}",
        r"\toprule",
        r"run & signal.rank & alpha & problem & status & iterations & seconds & PSNR \\",
        r"\midrule",
    ]
    assert lines[7] == r"rank-10\_alpha-100 & 10 & 100 & a & done & 100 & 1.0 & \textbf{30.00} \\"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


@pytest.fixture
def seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods, of which the second has diverged once and lacks a seed."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/dop", dict.fromkeys(("a", "b", "c"), "done"), seeds=3, psnr=23.456)
    write_run(tmp_path / "runs/dip", {"a": "done", "b": "diverged", "c": None}, seeds=3, psnr=30.0)


def test_several_seeds_make_a_row(seeds: None, dop) -> None:
    said = dop("table", "runs")
    assert said.status == 0
    assert said.out.splitlines() == [
        "run   seeds  status              iterations  seconds          PSNR",
        "dip  2 of 3  1 done, 1 diverged         100      1.0  30.00 ± 0.00",
        "dop       3  done                       100      1.0  23.46 ± 0.00",
        "",
        "± standard deviation over seeds",
    ]
    assert said.err.splitlines() == [
        "dip: 1 of 3 problems without a result",
        "1 of 5 problems diverged; means include their last scores",
    ]


def test_each_and_mean_determine_the_rows(seeds: None, sweep: Path, dop) -> None:
    assert [line.split()[2] for line in dop("table", "runs", "--each").out.splitlines()[1:6]] == [
        "done",
        "diverged",
        *["done"] * 3,
    ]
    rows = [line.split() for line in dop("table", "out", "--mean").out.splitlines()]
    # two files of one name in a run: their differences do not identify them, so the run and the first problem are named
    assert rows[0][:5] == ["problem", "run", "signal.rank", "alpha", "seeds"]
    assert [row[-1] for row in rows[1:5]] == ["20.00", "30.00*", "10.00", "20.00"]


def test_means_as_csv_and_markdown(seeds: None, dop) -> None:
    rows = list(csv.DictReader(io.StringIO(dop("table", "runs", "--csv", "-").out)))
    assert [(row["run"], row["problems"], row["results"], row["psnr_mean"], row["psnr_std"]) for row in rows] == [
        ("dip", "3", "2", "30.0", "0.0"),
        ("dop", "3", "3", "23.456", "0.0"),
    ]
    assert "psnr" in csv.DictReader(io.StringIO(dop("table", "runs", "--csv", "-", "--each").out)).fieldnames
    assert r"dop & 3 & done & 100 & 1.0 & 23.46 $\pm$ 0.00 \\" in dop("table", "runs", "--latex").out.splitlines()
    assert dop("table", "runs", "--markdown").out.splitlines()[:2] == [
        "| run | seeds | status | iterations | seconds | PSNR |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]


@pytest.mark.parametrize(("tau", "rows"), [("[1.0, 2.0]", 2), ("auto", 1)])
def test_a_list_of_rates_is_a_list_of_methods(tau: str, rows: int, tmp_path: Path, dop) -> None:
    run = tmp_path / "run"
    write_run(run, {"a": "done", "b": "done"}, seeds=2, psnr=20.0)
    for name, value in (("a", 1.0), ("b", 2.0)):
        path = run / name / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "tau": value}))
    (run / "config.yaml").write_text(f"model: {{tau: {tau}}}\n")
    table = dop("table", str(run), "--mean", "--csv", "-").out
    assert len(table.splitlines()) == 1 + rows
    (run / "config.yaml").write_text("[1")
    said = dop("table", str(run))
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "config.yaml: not a config written by dop" in said.err


def test_results_are_rebuilt_if_allowed(sweep: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    read_only = sweep / "rank-2_alpha-100"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != read_only and access(path, mode))
    said = dop("table", "out")
    assert said.status == 0
    assert len(said.out.splitlines()) == 5 + 2
    assert not (read_only / "results.csv").exists()
    assert len((sweep / "rank-10_alpha-100" / "results.csv").read_text().splitlines()) == 2


def test_runs_of_several_folders_are_named_by_path_and_listed_once(sweep: Path, dop) -> None:
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
        (["nowhere"], "nowhere: must be the folder of a run or contain runs, but is not a folder"),
        (["empty"], "empty: contains no run (a folder with manifest.json)"),
        (["empty", "--csv", "-", "--markdown"], "--csv - and --markdown both print"),
        (["empty", "--csv", "-", "--latex"], "--csv - and --latex both print"),
        (["empty", "--markdown", "--latex"], "--latex: not allowed with argument --markdown"),
        (["empty", "--each", "--mean"], "--mean: not allowed with argument --each"),
        (["damaged"], "damaged/sweep.json: not a summary written by dop sweep"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], text: str, dop, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "sweep.json").write_text("{")
    said = dop("table", *arguments)
    assert said.status == 2
    assert said.err.startswith("dop table: error: ")
    assert said.err.count("\n") == 1
    assert text in said.err


@pytest.mark.parametrize("name", ["", "run"])
def test_folder_is_not_a_csv_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dop) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", {"a": "done"})
    said = dop("table", "run", "--csv", name)
    assert (said.status, said.err) == (
        2,
        f"dop table: error: --csv must be a file or -, got {name!r}, which is a folder\n",
    )
