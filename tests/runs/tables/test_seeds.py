"""Statistics over seeds: groups, comparisons, and missing values."""

import csv
import io
import statistics
from typing import Any

import pytest

from dop_lightning.runs.results import render_markdown, render_table
from dop_lightning.runs.tables.comparison import RunTable, rows_of, short_columns
from dop_lightning.runs.tables.seeds import best_of, group_over_seeds
from dop_lightning.runs.tables.summary import csv_over_seeds, mark_best, table_over_seeds

CAMERA = {"image": "camera", "ratio": 0.3}
COFFEE = {"image": "coffee", "ratio": 0.3}


def run(
    name: str,
    *problems: tuple[dict[str, Any], int, dict[str, Any] | None],
    axes: dict[str, str] | None = None,
    listed: tuple[str, ...] = (),
) -> RunTable:
    """Create a run: attributes, seed and result of each problem; ``None`` if it has no result."""
    entries, results = [], []
    for k, (attributes, seed, scores) in enumerate(problems):
        entry = {"name": f"problem-{k}", "attributes": attributes, "seed": seed, "shape": [1, 8, 8]}
        entries.append(entry)
        if scores is not None:
            result = {"problem": entry["name"], "attributes": attributes, "seed": seed, "status": "done"}
            results.append({**result, "iterations": 100, "seconds": 1.0, **scores})
    return RunTable(name, axes or {}, results, "", entries, listed)


def psnrs(attributes: dict[str, Any], *values: float | None) -> list[tuple[dict[str, Any], int, dict[str, Any] | None]]:
    return [(attributes, seed, None if value is None else {"psnr": value}) for seed, value in enumerate(values)]


def text(*runs: RunTable, markdown: bool = False) -> list[list[str]]:
    render = render_markdown if markdown else render_table
    lines = render(*table_over_seeds(group_over_seeds(runs), markdown)).splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_problems_that_differ_only_by_seed_are_grouped() -> None:
    groups = group_over_seeds([run("a", *psnrs(CAMERA, 20.0, 21.0, 25.0), *psnrs(COFFEE, 30.0, 31.0))])
    assert [(group.attributes["image"], len(group.results)) for group in groups] == [("camera", 3), ("coffee", 2)]
    assert text(run("a", *psnrs(CAMERA, 20.0, 21.0, 25.0), *psnrs(COFFEE, 30.0, 31.0))) == [
        ["image", "seeds", "status", "iterations", "seconds", "PSNR"],
        ["camera", "3", "done", "100", "1.0", f"22.00 ± {statistics.stdev([20, 21, 25]):.2f}"],
        ["coffee", "2", "done", "100", "1.0", f"30.50 ± {statistics.stdev([30, 31]):.2f}"],
    ]


def test_each_makes_one_group_per_problem() -> None:
    groups = group_over_seeds([run("a", *psnrs(CAMERA, 20.0, None, 25.0))], each=True)
    assert [group.problems for group in groups] == [["problem-0"], ["problem-2"]]


def test_a_single_seed_has_no_spread() -> None:
    assert text(run("a", *psnrs(CAMERA, 20.0)))[1] == ["camera", "0.3", "1", "done", "100", "1.0", "20.00"]


def test_two_files_of_one_name_are_not_averaged() -> None:
    """Their attributes are equal, and so are their seeds, which no two problems of a group have."""
    both = run("a", *psnrs(CAMERA, 20.0, 22.0), *psnrs(CAMERA, 30.0, 32.0))
    groups = group_over_seeds([both])
    assert [group.values("psnr") for group in groups] == [[20.0, 22.0], [30.0, 32.0]]
    assert best_of(groups) == [set(), set()]
    assert [row[0] for row in text(both)[1:]] == ["problem-0", "problem-2"]


def test_shapes_distinguish_problems() -> None:
    small, large = run("a", *psnrs(CAMERA, 20.0, 20.0)), run("b", *psnrs(CAMERA, 30.0, 30.0))
    for problem in large.problems:
        problem["shape"] = [1, 16, 16]
    assert best_of(group_over_seeds([small, large])) == [set(), set()]


def test_runs_are_distinguished_and_compared() -> None:
    rows = text(run("dop", *psnrs(CAMERA, 20.0, 21.0), *psnrs(COFFEE, 9.0, 9.0)),
                run("dip", *psnrs(CAMERA, 19.0, 20.0), *psnrs(COFFEE, 9.001, 9.002)))  # fmt: skip
    # what is compared stands together; those that look alike are all marked
    assert [[*row[:2], row[-1]] for row in rows[1:]] == [
        ["dop", "camera", "20.50 ± 0.71*"],
        ["dip", "camera", "19.50 ± 0.71"],
        ["dop", "coffee", "9.00 ± 0.00*"],
        ["dip", "coffee", "9.00 ± 0.00*"],
    ]


def test_digits_stay_aligned_next_to_a_star() -> None:
    table = render_table(
        *table_over_seeds(group_over_seeds([run("a", *psnrs(CAMERA, 20.0)), run("b", *psnrs(CAMERA, 9.5))]))
    )
    first, second = table.splitlines()[1:]
    assert first.index(".00*") == second.rindex(".50")


def test_best_in_markdown_is_bold() -> None:
    cells = text(run("a", *psnrs(CAMERA, 20.0)), run("b", *psnrs(CAMERA, 10.0)), markdown=True)
    assert [row[0].rsplit("| ", 1)[1] for row in cells[2:]] == ["**20.00** |", "10.00 |"]


@pytest.mark.parametrize(
    ("key", "best"), [("psnr", 1), ("ssim", 1), ("relative_error", 0), ("rank", None), ("loss", None)]
)
def test_best_value_is_marked(key: str, best: int | None) -> None:
    groups = group_over_seeds([run(name, (CAMERA, 0, {key: value})) for name, value in (("a", 0.5), ("b", 0.75))])
    assert best_of(groups) == [{key} if k == best else set() for k in (0, 1)]


def test_axis_of_the_problem_is_not_a_method() -> None:
    method = [run(f"a{v}", *psnrs(CAMERA, v), axes={"model.alpha": str(v)}) for v in (1.0, 2.0)]
    assert best_of(group_over_seeds(method)) == [set(), {"psnr"}]
    given = [run(f"a{v}", *psnrs(CAMERA, v), axes={"data.init_args.crop": str(v)}) for v in (1.0, 2.0)]
    assert best_of(group_over_seeds(given)) == [set(), set()]
    scales = [psnrs({**CAMERA, "alpha_scale": v}, v)[0] for v in (1.0, 2.0)]  # data.alphas: a problem, two methods
    assert best_of(group_over_seeds([run("a", *scales)])) == [set(), {"psnr"}]


def test_a_seed_in_each_point_of_a_sweep() -> None:
    points = [
        run(f"sweep/{alpha}-{seed}", (CAMERA, seed, {"psnr": 20.0 + seed + float(alpha)}),
            axes={"model.alpha": alpha, "data.init_args.seeds": f"[{seed}]"})
        for alpha in ("1", "2") for seed in (0, 2)
    ]  # fmt: skip
    assert [row[:2] + row[-1:] for row in text(*points)[1:]] == [
        ["1", "2", "22.00 ± 1.41"],
        ["2", "2", "23.00 ± 1.41*"],
    ]


def test_given_rates_are_methods_and_automatic_ones_are_not() -> None:
    problems = [(CAMERA, seed, {"psnr": 20.0, "tau": 0.1 * (1 + seed)}) for seed in (0, 1)]
    assert len(group_over_seeds([run("a", *problems)])) == 1
    assert len(group_over_seeds([run("a", *problems, listed=("tau",))])) == 2


def test_missing_and_diverged_problems_are_reported_and_not_marked() -> None:
    whole, part = psnrs(CAMERA, 20.0, 21.0, 22.0), psnrs(CAMERA, 30.0, None, 32.0)
    part[2][2]["status"] = "diverged"  # type: ignore[index]
    rows = text(run("whole", *whole), run("part", *part))
    assert rows[1][1:3] + rows[1][-1:] == ["3", "done", "21.00 ± 1.00"]
    assert rows[2][1:3] + rows[2][-1:] == ["2 of 3", "1 done, 1 diverged", "31.00 ± 1.41"]


def test_unknown_scores_are_counted() -> None:
    problems = [(CAMERA, 0, {"psnr": 20.0}), (CAMERA, 1, {}), (CAMERA, 2, {"psnr": float("nan")})]
    assert text(run("a", *problems))[1][-1] == "20.00 (1 of 3)"
    assert best_of(group_over_seeds([run("a", *problems), run("b", *psnrs(CAMERA, 1.0, 2.0, 3.0))])) == [set(), set()]
    assert text(run("a", (CAMERA, 0, {}), (CAMERA, 1, {})))[0][-1] == "seconds"  # no PSNR at all


def test_csv_is_unrounded_with_counts() -> None:
    values = [20.123456789, 21.0, 22.5]
    rows = list(csv.DictReader(io.StringIO(csv_over_seeds(group_over_seeds(
        [run("a", *psnrs(CAMERA, *values)), run("b", *psnrs(CAMERA, 1.0, None))]
    )))))  # fmt: skip
    assert float(rows[0]["psnr_mean"]) == statistics.fmean(values)
    assert float(rows[0]["psnr_std"]) == statistics.stdev(values)
    names = ("run", "image", "ratio", "seeds", "problems", "results", "done", "diverged", "psnr_n", "best")
    assert [rows[0][name] for name in names] == ["a", "camera", "0.3", "0 1 2", "3", "3", "3", "0", "3", ""]
    assert [rows[1][name] for name in names] == ["b", "camera", "0.3", "0", "2", "1", "1", "0", "1", ""]
    assert (rows[1]["psnr_mean"], rows[1]["psnr_std"]) == ("1.0", "")
    assert (rows[1]["ssim_mean"], rows[1]["ssim_std"], rows[1]["ssim_n"]) == ("", "", "0")


def test_best_value_of_each_problem_is_marked() -> None:
    runs = [run("a", *psnrs(CAMERA, 20.0, 21.0)), run("b", *psnrs(CAMERA, 19.0, 22.0))]
    rows = [result for one in runs for result in one.results]
    marked, columns = mark_best(runs, rows, [("psnr", "PSNR", ".2f")])
    assert [row["psnr"] for row in marked] == ["20.00*", "21.00 ", "19.00 ", "22.00*"]
    assert columns == [("psnr", "PSNR ", ">")]
    assert rows[0]["psnr"] == 20.0


# ------------------------------------------------------------------------------------------------------ custom scores


def lpips(higher: bool | None, *values: float | None) -> list[tuple[dict[str, Any], int, dict[str, Any] | None]]:
    """Problems with a custom score, and whether higher is better."""
    said = {} if higher is None else {"higher_is_better": {"lpips": higher}}
    return [(CAMERA, seed, {} if value is None else {"lpips": value, **said}) for seed, value in enumerate(values)]


@pytest.mark.parametrize(("higher", "best"), [(False, "a"), (True, "b"), (None, "")])
def test_custom_scores_have_means_and_are_marked_by_their_direction(higher: bool | None, best: str) -> None:
    runs = [run("a", *lpips(higher, 0.1, 0.2)), run("b", *lpips(higher, 0.3, 0.5))]
    header, *rows = text(*runs, markdown=True)
    assert header[0].split(" | ")[-1] == "lpips |"
    cells = {"a": "0.15 ± 0.071", "b": "0.4 ± 0.14"}
    for row, (name, cell) in zip(rows[1:], cells.items(), strict=True):
        assert row[0].split(" | ")[-1] == f"{f'**{cell}**' if name == best else cell} |"
    table = list(csv.DictReader(io.StringIO(csv_over_seeds(group_over_seeds(runs)))))
    assert [float(row["lpips_mean"]) for row in table] == pytest.approx([0.15, 0.4])
    assert [row["best"] for row in table] == ["lpips" if name == best else "" for name in cells]


def test_each_problem_of_a_custom_score_is_marked() -> None:
    runs = [run("a", *lpips(False, 0.12345)), run("b", *lpips(False, 0.3)), run("c", *lpips(False, None))]
    rows, first = rows_of(runs)
    table, columns = mark_best(runs, rows, short_columns(first, rows))
    assert columns[-1] == ("lpips", "lpips ", ">")
    assert [row.get("lpips") for row in table] == ["0.1235*", "0.3 ", None]


def test_runs_with_different_directions_are_not_compared() -> None:
    runs = [run("a", *lpips(False, 0.1)), run("b", *lpips(True, 0.3))]
    assert best_of(group_over_seeds(runs)) == [set(), set()]
