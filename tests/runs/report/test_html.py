"""The page of ``dop report``, read back."""

import base64
import csv
import hashlib
import json
import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from dop_lightning.runs.report import render
from dop_lightning.runs.report.page import repeat_command
from dop_lightning.runs.report.reading import read_run
from dop_lightning.runs.report.rendering import environment
from tests.runs.builders import CURVE, RESULT, Page, write_run


def page_of(run: Path, most: int = 12, out: Path | None = None) -> Page:
    return Page(render(read_run(run, most), out or run / "report.html"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two problems that have ended, one that has diverged, one without a result."""
    return write_run(tmp_path / "run", {"a": {}, "b": {"status": "stable"}, "c": {"status": "diverged"}, "d": None})


def test_all_problems_are_listed_with_statuses(run: Path) -> None:
    page = page_of(run)
    assert page.text("th", scope="row") == ["a", "b", "c", "d"]
    assert [attrs["class"].split()[1:] for attrs in page.all("span", class_="status")][4:8] == [
        ["done"],
        ["stable"],
        ["diverged"],
        ["no-result"],
    ]
    assert page.text("h1") == ["run"]
    assert page.text("p", class_="headline") == ["4 problems: 1 done 1 stable 1 diverged 1 no result"]
    links = [attrs["href"] for attrs in page.all("a") if attrs["href"].startswith("#")]
    assert (
        links
        == [f"#{section['id']}" for section in page.all("section", class_="problem")]
        == ["#p1", "#p2", "#p3", "#p4"]
    )
    assert ["use a smaller alpha or tau" in note for note in page.text("p", class_="note-bad")] == [True]


def test_page_has_no_external_resources(run: Path) -> None:
    page = page_of(run)
    for _, attrs in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            address = urlsplit(attrs.get(name, ""))
            assert not address.netloc
            assert address.scheme in ("", "data")
            assert not address.scheme or not address.path.startswith("text")
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
    assert "url(" not in page.text("style")[0]
    assert "@import" not in page.text("style")[0]


def test_policy_allows_only_its_own_script_and_style(run: Path) -> None:
    text = render(read_run(run, 12), run / "report.html")
    (policy,) = (m["content"] for m in Page(text).all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


EVIL = "</script></code><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;"


def test_markup_in_names_settings_and_config_is_text(tmp_path: Path) -> None:
    name = "a<b>&\"' é照"
    result = {"attributes": {EVIL: EVIL, "image": "\udcff\x00"}, "status": EVIL, "machine": {EVIL: EVIL}}
    run = write_run(tmp_path / "<i>run", {name: result, "p2": {}}, config=f"x: {EVIL}\ny: 1\n")
    page = page_of(run)
    assert len(page.all("script")) == 1
    assert not [attrs for attrs in page.all("img") if "onerror" in attrs]
    assert page.all("i") == page.all("b", class_="x") == []
    assert page.text("h1") == ["<i>run"]
    assert page.text("h2", id="p1-title")[0].startswith(name)
    assert page.text("th", scope="row")[0] == name
    assert EVIL in page.text("dd")
    assert f"x: {EVIL} y: 1" in page.text("pre")
    assert "alert" not in page.text("script")[0]
    assert any(name in attrs["alt"] for attrs in page.all("img"))
    for attrs in page.all("a"):  # links lead to the very files
        if not attrs["href"].startswith("#"):
            assert (run / unquote(attrs["href"])).is_file()


def test_templates_escape_all_but_the_style_and_the_script() -> None:
    assert environment().autoescape is True
    texts = [environment().loader.get_source(environment(), name)[0] for name in environment().list_templates()]
    assert len(texts) == 3
    unescaped = re.findall(r"\w+\|safe|autoescape|Markup", "".join(texts))
    assert unescaped == ["style|safe", "script|safe"]


def test_curves_have_the_values_of_metrics_csv(run: Path) -> None:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["problem"] == "a" and row["tag"] == "psnr"]
    page = page_of(run)
    lines = [attrs for attrs in page.all("polyline") if attrs["data-label"] == "psnr"]
    pairs = [pair.split(":") for pair in lines[0]["data-values"].split()]
    assert [int(at) for at, _ in pairs] == [int(row["iteration"]) for row in rows]
    assert [float(value) for _, value in pairs] == pytest.approx([float(row["value"]) for row in rows], rel=1e-4)
    places = [[float(number) for number in place.split(",")] for place in lines[0]["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert (x2 - x1) / (x1 - x0) == pytest.approx((100 - 40) / (40 - 20), abs=0.02)
    assert (y1 - y2) / (y0 - y1) == pytest.approx((34.387 - 20.5) / (20.5 - 12.0), abs=0.02)
    (loss,) = [attrs for attrs in page.all("polyline") if attrs["data-label"] == "loss"][:1]
    y0, y1, y2 = (float(place.split(",")[1]) for place in loss["points"].split())
    assert (y2 - y1) / (y1 - y0) == pytest.approx(np.log10(0.01 / 2e-4), abs=0.05)  # a logarithmic axis


def test_curves_of_all_problems_are_overlaid(run: Path) -> None:
    lines = [attrs for attrs in page_of(run).all("polyline") if attrs["data-label"] in ("a", "b", "c")]
    assert [attrs["data-label"] for attrs in lines] == ["a", "b", "c"] * 2  # PSNR and loss


def test_incomplete_line_is_ignored(run: Path) -> None:
    with (run / "metrics.csv").open("a") as file:
        file.write("a,200,psnr,3")
    values = [attrs["data-values"] for attrs in page_of(run).all("polyline") if attrs["data-label"] == "psnr"]
    assert values[0].endswith("100:34.387")


def test_scores_and_settings(run: Path) -> None:
    rows = dict(zip(page_of(run).text("dt"), page_of(run).text("dd"), strict=True))
    expected = {
        "PSNR as observed": "9.50 dB",
        "PSNR recovered": "34.39 dB",
        "Best PSNR during the run": "35.10 dB at 80",
        "Detected as corrupted": "39.0%",
        "Truly corrupted": "40.0%",
        "alpha": "400",
        "seed": "3",
        "iterations": "100",
        "time": "1 min 15 s",
        "image": "camera",
        "size": "1 × 12 × 16",
        "torch": "2.13.0",
        "dop_lightning": "0.1.0",
    }
    assert {key: rows.get(key) for key in expected} == expected


def test_slider_is_accessible(run: Path) -> None:
    page = page_of(run)
    sliders = page.all("input", type="range")
    assert len(sliders) == 3
    assert sliders[0]["aria-label"].startswith("a: ")
    assert [attrs["class"].split()[0] for attrs in page.all("img")[:2]] == ["before", "after"]
    assert all(attrs["alt"] and attrs["width"] and attrs["height"] for attrs in page.all("img"))
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.all("svg"))


# ---------------------------------------------------------------------------------------------------------- missing


def test_page_of_a_run_that_has_just_started(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": None}, curves={})
    (run / "metrics.csv").unlink()
    (run / "a").rmdir()
    page = page_of(run)
    assert page.text("h2") == ["a no result", "Repeat this run"]
    assert page.all("img") == page.all("svg") == page.all("table") == []
    assert "has no result yet" in page.text("p", class_="note-mild")[0]


def test_page_of_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {"machine": {"torch": "2.6"}}}, pictures=["recovered", "corruption"])
    (run / "config.yaml").unlink()
    page = page_of(run)
    assert page.all("input") == []
    assert len(page.all("figure", class_="picture")) == 2
    assert [title for title in page.text("span", class_="title") if "Histogram" in title] == []
    assert "Repeat this run" not in page.text("h2")


def test_probability_is_shown_if_known(tmp_path: Path) -> None:
    pictures = ["recovered", "corruption", "corruption_probability"]
    page = page_of(write_run(tmp_path / "run", {"a": {}}, pictures=pictures))
    assert [text for text in page.text("figcaption") if "Probability that a value is corrupted" in text]


def test_histogram_is_computed_if_not_stored(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {}}, shape=(4, 4))
    np.save(run / "a" / "corruption.npy", np.diag([8.0, 0, 0, 0]))
    page = page_of(run)
    (histogram,) = [attrs for attrs in page.all("svg") if attrs["aria-label"].startswith("Histogram")]
    assert histogram["aria-label"].endswith("93.8% of 16 entries are below 0.133, none is above 8")


@pytest.mark.parametrize(
    ("shape", "array", "heat_map"),
    [
        ((12, 16), (12, 16), True),
        ((192, 5), (192, 5), False),  # frames of a video: its columns
        ((99,), (12, 16), True),  # measured
        ((99,), (3, 12, 16), False),
        ((99,), None, True),
        ((1, 12, 16), (12, 16), False),  # a NumPy file of grey values
    ],
)
def test_pictures_of_matrices_have_colours(shape, array, heat_map: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {}}, shape=(12, 16))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["problems"][0]["shape"] = list(shape)
    (run / "manifest.json").write_text(json.dumps(manifest))
    if array is not None:
        np.save(run / "a" / "recovered.npy", np.zeros(array))
    captions = " ".join(page_of(run).text("figcaption"))
    assert ("Blue is negative" in captions) == heat_map
    assert ("Black is clean" in captions) != heat_map


def test_page_of_a_method_without_corruption(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", {"a": {"alpha": None}}))
    assert [text for text in page.text("figcaption") if "corruption" in text] == []
    assert len(page.all("figure", class_="picture")) == 1  # the truth


def test_curves_of_an_image_in_tiles_are_the_means_of_its_tiles(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {}})
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["problems"][0]["tiles"] = ["a-0", "a-1"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    rows = ["problem,iteration,tag,value", "a-0,10,loss,1", "a-1,10,loss,3", "a-0,20,loss,1", ""]
    (run / "metrics.csv").write_text("\n".join(rows))
    assert read_run(run, 1).shown[0].curves == {"loss": [(10, 2.0)]}


def test_single_points_zeros_and_nonfinite_values_are_drawn(tmp_path: Path) -> None:
    curves = {
        "loss": {10: 0.0, 20: 1.0, 30: float("inf")},
        "psnr": {10: 5.0},
        "own_tag": {0: 1e-9, 9: 1.0},
        "x": {0: float("nan")},
    }
    page = page_of(write_run(tmp_path / "run", {"a": {}}, curves=curves))
    lines = {attrs["data-label"]: attrs["data-values"] for attrs in page.all("polyline")}
    assert lines == {"loss": "10:0 20:1", "psnr": "10:5", "own_tag": "0:1e-09 9:1"}


# -------------------------------------------------------------------------------------------------------- many problems


def test_few_of_many_problems_are_shown_and_all_are_listed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {f"n{k}": {} for k in range(60)})
    page = page_of(run, most=5)
    assert len(page.all("section", class_="problem")) == 5
    assert len(page.all("th", scope="row")) == 60
    assert any("5 of 60 problems" in text for text in page.text("p"))
    assert page_of(run, most=0).all("img") == []


def test_problems_with_pictures_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {f"n{k}": {} for k in range(30)}, pictures=[])
    for name in ("n7", "n8"):
        write_run(tmp_path / name, {name: {}})
        (tmp_path / name / name / "recovered.png").rename(run / name / "recovered.png")
    assert [problem.name for problem in read_run(run, 12).shown] == ["n7", "n8"]


def test_number_of_rows_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dop_lightning.runs.report.page.MAX_ROWS", 3)
    page = page_of(write_run(tmp_path / "run", {f"n{k}": {} for k in range(5)}), most=1)
    assert len(page.all("th", scope="row")) == 3
    assert any("2 more, in results.csv" in text for text in page.text("p"))


# ---------------------------------------------------------------------------------------------------- links and command


def test_links_are_relative_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "my run", {"a": {}})
    (run / "a" / "comparison.mp4").write_bytes(b"")
    for out in (run / "report.html", tmp_path / "else where" / "deep" / "page.html"):
        links = [attrs["href"] for attrs in page_of(run, out=out).all("a")]
        assert len(links) == 6
        assert all((out.parent / unquote(link)).resolve().is_file() for link in links)
        assert any(link.endswith("comparison.mp4") for link in links)


ELSEWHERE = ["--trainer.default_root_dir"]


def test_command_is_valid_in_a_shell() -> None:
    assert repeat_command(Path("run")) == "dop fit --config run/config.yaml --trainer.default_root_dir run-again"
    words = shlex.split(repeat_command(Path("it's; rm -rf")))
    assert words == ["dop", "fit", "--config", "it's; rm -rf/config.yaml", *ELSEWHERE, "it's; rm -rf-again"]
    assert "./-x/config.yaml" in repeat_command(Path("-x"))
    assert shlex.split(repeat_command(Path()))[-1] == f"{Path.cwd()}-again"


def test_machines_are_distinguished(tmp_path: Path) -> None:
    other = {**RESULT["machine"], "device": "cuda:0"}
    page = page_of(write_run(tmp_path / "run", {"a": {}, "b": {"machine": other}, "c": {}}))
    assert [text for text in page.text("p") if text.endswith(":")] == ["2 problems:", "1 problem:"]


def test_custom_scores_are_on_the_page(tmp_path: Path) -> None:
    curves = {**CURVE, "lpips": {20: 0.5, 100: 0.25}}
    direction = {"higher_is_better": {"lpips": False}}
    run = write_run(tmp_path / "run", {"a": {"lpips": 0.25, **direction}, "b": {"lpips": 0.5, **direction}}, curves)
    page = page_of(run)
    assert page.text("ul", class_="means")[0].endswith("0.375mean lpips")
    assert page.text("th", class_="n")[-1] == "lpips"
    assert [text for text in page.text("div") if text.startswith("lpips")] == ["lpips0.25", "lpips0.5"]
    titles = page.text("span", class_="title")
    assert [title for title in titles if title == "lpips"] == ["lpips"] * 3  # over each other, then one each
