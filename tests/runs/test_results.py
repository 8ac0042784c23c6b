"""``result.json`` and ``results.csv``."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dop_lightning.engine.outcome import Outcome, Status
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.tags import RESERVED
from dop_lightning.runs.results import (
    SCORES,
    SUMMARY,
    custom_scores,
    read_results,
    render_table,
    summary_columns,
    write_result,
    write_table,
)

BEFORE = ["seed", "alpha", "status", "iterations", "seconds", "loss", "input_psnr", "psnr", "best_psnr"]
AFTER = [
    "best_iteration",
    "ssim",
    "relative_error",
    "relative_error_corruption",
    "corruption_density",
    "true_density",
    "support_precision",
    "support_recall",
]


def write(run: Path, name: str, attributes: dict[str, Any], status: Status = "done", **scores: float) -> None:
    y = torch.zeros(2, 2)
    alpha = None if name == "dip" else 7.0710678
    best = {key: scores.pop(key) for key in ("best_psnr", "best_iteration") if key in scores}
    outcome = Outcome(Problem(name, y, seed=3, attributes=attributes), status, 150, 1.23456, 2e-3, alpha, y, y, scores)
    write_result(run / name, outcome, best, {"device": "cpu"})


def manifest(run: Path, *names: str) -> None:
    (run / "manifest.json").write_text(json.dumps({"fingerprint": "x", "problems": [{"name": name} for name in names]}))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_of_the_table(tmp_path: Path) -> None:
    write(tmp_path, "a", {"image": "camera", "ratio": 0.5}, loss=0.5)
    write(tmp_path, "b", {"image": "coffee", "per": "pixel"}, loss=0.5)
    write_table(tmp_path)
    header = (tmp_path / "results.csv").read_text().splitlines()[0].split(",")
    assert header == ["problem", "image", "ratio", "per", *BEFORE, *AFTER, "rank"]


def test_unknown_values_are_empty(tmp_path: Path) -> None:
    write(tmp_path, "dip", {"image": "camera"}, loss=0.25)
    write(tmp_path, "dop", {"ratio": 0.5, "kept": True}, loss=float("inf"), psnr=float("nan"), rank=5.0)
    write_table(tmp_path)
    dip, dop = rows(tmp_path)
    known = {key: value for key, value in dip.items() if value}
    assert known == {
        "problem": "dip",
        "image": "camera",
        "seed": "3",
        "status": "done",
        "iterations": "150",
        "seconds": "1.235",
        "loss": "0.25",
    }
    assert (dop["image"], dop["ratio"], dop["kept"]) == ("", "0.5", "True")
    assert (dop["loss"], dop["psnr"], dop["rank"], dop["alpha"]) == ("", "", "5", "7.07107")


def test_rows_are_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path, name, {})
    assert [result["problem"] for result in read_results(tmp_path)] == ["a", "b", "c"]
    manifest(tmp_path, "c", "unfinished", "a", "b")
    assert [result["problem"] for result in read_results(tmp_path)] == ["c", "a", "b"]
    assert write_table(tmp_path) == read_results(tmp_path)
    assert [row["problem"] for row in rows(tmp_path)] == ["c", "a", "b"]


def test_brief_results_give_the_same_table(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path, name, {"image": name}, psnr=20.5, lpips=0.25)
    manifest(tmp_path, "c", "unfinished", "a", "b")
    full = write_table(tmp_path)
    table = (tmp_path / "results.csv").read_bytes()
    brief = write_table(tmp_path, ["c", "unfinished", "a", "b"], brief=True)
    assert (tmp_path / "results.csv").read_bytes() == table
    left_out = {key for result in full for key in result} - {key for result in brief for key in result}
    assert left_out <= {"machine", "files", "checksum", "report"}
    assert [{key: result[key] for key in short} for result, short in zip(full, brief, strict=True)] == brief
    assert summary_columns(brief) == summary_columns(full)
    assert read_results(tmp_path, ["b"], brief=True) == [brief[2]]
    assert read_results(tmp_path / "none") == []


def test_results_of_problems_outside_the_run_are_omitted(tmp_path: Path) -> None:
    for name in ("a", "stranger"):
        write(tmp_path, name, {})
    manifest(tmp_path, "a")
    assert [result["problem"] for result in read_results(tmp_path)] == ["a"]


def test_every_status_and_the_best_are_written(tmp_path: Path) -> None:
    statuses: list[Status] = ["done", "stable", "diverged", "interrupted"]
    for status in statuses:
        write(tmp_path, status, {}, status, psnr=20.0, best_psnr=21.5, best_iteration=50)
    write_table(tmp_path)
    assert sorted(row["status"] for row in rows(tmp_path)) == sorted(statuses)
    assert {(row["psnr"], row["best_psnr"], row["best_iteration"]) for row in rows(tmp_path)} == {("20", "21.5", "50")}


def test_a_name_with_a_comma_stays_one_cell(tmp_path: Path) -> None:
    write(tmp_path, "a", {"image": 'one, "two"\nthree'})
    write_table(tmp_path)
    assert rows(tmp_path)[0]["image"] == 'one, "two"\nthree'


def test_a_run_without_results_has_a_table_without_rows(tmp_path: Path) -> None:
    assert write_table(tmp_path) == []
    assert rows(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"no": "problem"}'])
def test_a_damaged_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"a/result.json: not a result written by dop"):
        read_results(tmp_path)


def test_a_short_table(tmp_path: Path) -> None:
    results = [
        {"problem": "a", "status": "done", "iterations": 100, "psnr": 23.456, "rank": None},
        {"problem": "longer", "status": "diverged", "iterations": 0},
    ]
    assert render_table(results, SUMMARY) == "\n".join(
        [
            "problem  status    iterations   PSNR",
            "a        done             100  23.46",
            "longer   diverged           0",
        ]
    )


def test_short_table_without_rows() -> None:
    assert render_table([], SUMMARY) == ""


# ------------------------------------------------------------------------------------------------------ custom scores


def test_custom_scores_follow_the_built_in_ones(tmp_path: Path) -> None:
    write(tmp_path, "a", {"image": "camera"}, loss=0.5, lpips=0.25, psnr=20.0)
    write(tmp_path, "b", {"image": "coffee"}, loss=0.5, sharpness=float("nan"))
    write(tmp_path, "c", {"image": "coffee"}, loss=0.5, contrast=3.0, lpips=0.125)
    results = write_table(tmp_path)
    assert custom_scores(results) == ["lpips", "contrast"]
    table = rows(tmp_path)
    assert list(table[0]) == ["problem", "image", *BEFORE, *AFTER, "rank", "lpips", "contrast"]
    assert [(row["lpips"], row["contrast"]) for row in table] == [("0.25", ""), ("", ""), ("0.125", "3")]
    text = render_table(results, summary_columns(results)).splitlines()
    assert [line.split()[4:] for line in text] == [["PSNR", "lpips", "contrast"], ["20.00", "0.25"], [], ["0.125", "3"]]


def test_direction_of_custom_scores_is_not_a_score(tmp_path: Path) -> None:
    y = torch.zeros(2, 2)
    outcome = Outcome(Problem("a", y), "done", 150, 1.0, 2e-3, 7.0, y, y, {"loss": 1.0, "lpips": 0.25})
    write_result(tmp_path / "a", outcome, {}, {}, {"lpips": False})
    (result,) = write_table(tmp_path)
    assert result["higher_is_better"] == {"lpips": False}
    assert custom_scores([result]) == ["lpips"]


def test_built_in_columns_and_keys_are_reserved(tmp_path: Path) -> None:
    """Else a metric of the user could have the tag of one."""
    write(tmp_path, "a", {}, loss=1.0)
    assert {*SCORES, *(key for key, *_ in SUMMARY), *read_results(tmp_path)[0]} <= RESERVED
