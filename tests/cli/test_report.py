"""``dop report``."""

import json
import os
from pathlib import Path

import pytest

from tests.runs.builders import Page, write_run


def test_a_page_of_a_run_of_images(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["--data.images", "camera", "--data.resize", "16", "--model.signal.init_args.width", "4"]
    steps = ["--trainer.max_steps", "4", "--model.evaluate_every", "2", "--trainer.default_root_dir", "run"]
    config = Path(__file__).parents[2] / "configs" / "image.yaml"
    assert dop("fit", "--config", str(config), "--trainer.accelerator", "cpu", *settings, *steps).status == 0
    said = dop("report", "run")
    assert (said.status, said.out, said.err) == (0, "Report: run/report.html\n", "")
    page = Page(Path("run/report.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 4  # observed and recovered under the slider, corruption, truth
    titles = [text.partition(",")[0] for text in page.text("span", class_="title")]
    assert titles == [
        "PSNR",
        "SSIM",
        "Relative error of X",
        "Loss",
        "Fraction of entries detected as corrupted",
        "Histogram of |s|",
    ]
    assert "dop fit --config run/config.yaml --trainer.default_root_dir run-again" in page.text("code")
    assert "class_path: SkipUNet" in page.text("pre")[-1] or "SkipUNet" in page.text("pre")[-1]
    assert dop("report", "run").status == 0
    # the command of the page that repeats the run works
    command = page.text("code")[0].split()
    assert dop(*command[1:]).status == 0
    assert (tmp_path / "run-again" / "results.csv").is_file()


def test_page_in_another_folder_with_fewer_problems(dop, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {}, "b": {}, "c": {}})
    out = tmp_path / "new" / "page.html"
    said = dop("report", str(run), "--out", str(out), "--most", "1")
    assert (said.status, said.out) == (0, f"Report: {out}\n")
    assert len(Page(out.read_text(encoding="utf-8")).all("section", class_="problem")) == 1
    assert not (run / "report.html").exists()
    assert sorted(path.name for path in out.parent.iterdir()) == ["page.html"]


def test_the_same_run_gives_the_same_page(dop, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {}, "b": None})
    pages = []
    for _ in range(2):
        dop("report", str(run))
        pages.append((run / "report.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: RUN"),
        (["nowhere"], "nowhere: must be the folder of a run or contain runs, but is not a folder"),
        (["empty"], "empty: contains no run (a folder with manifest.json)"),
        (["sweep"], "sweep: a report shows one run, but the folder contains 2; specify one of them, such as sweep/one"),
        (["waiting"], "waiting: has not started, so a report cannot be created"),
        (["run", "--most", "-1"], "most must be a whole number of at least 0, got -1"),
        (["run", "--most", "x"], "argument --most: invalid int value: 'x'"),
        (["run", "--out", "empty"], "--out must be a file, got the folder empty"),
        (["manifest"], "manifest/manifest.json: not a manifest written by dop"),
        (["result"], "result/a/result.json: not a result written by dop"),
        (["curves"], "curves/metrics.csv: not curves written by dop"),
        (["picture"], "picture/a/recovered.png: cannot be read as a picture"),
        (["histogram"], "histogram/a/histogram.csv: not a histogram written by dop"),
        (["array"], "array/a/corruption.npy: not an array of numbers"),
        (["run/manifest.json"], "run/manifest.json: must be the folder of a run"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], text: str, dop, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name in ("run", "manifest", "result", "curves", "picture", "histogram", "array", "sweep/one", "sweep/other"):
        write_run(Path(name), {"a": {}})
    Path("waiting").mkdir()
    Path("waiting/point.json").write_text("{}")
    Path("manifest/manifest.json").write_text(json.dumps({"problems": [{}]}))
    Path("result/a/result.json").write_text("{")
    with Path("curves/metrics.csv").open("a") as file:
        file.write("a,x,psnr,1\n")
    Path("picture/a/recovered.png").write_text("")
    Path("histogram/a/histogram.csv").write_text("")
    Path("array/a/corruption.npy").write_text("x")
    said = dop("report", *arguments)
    assert said.status == 2
    assert said.err.startswith("dop report: error: ")
    assert said.err.count("\n") == 1
    assert text in said.err


def test_names_that_are_not_text(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        run = write_run(tmp_path / os.fsdecode(b"r\xff"), {"a": {}})
    except OSError:
        pytest.skip("this file system has names of UTF-8 alone")
    monkeypatch.chdir(run)
    assert dop("report", ".").status == 0
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert page.text("h1") == ["r\ufffd"]
