"""What all figures share."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dop_lightning.foundation.plotting import canvas, save
from dop_lightning.paper.figures import load_figure
from dop_lightning.paper.figures.base import csv_text
from dop_lightning.paper.figures.configs import config_folder


def refuse(*_: object) -> int:
    raise AssertionError("no run is asked for")


def test_table_has_the_columns_of_all_rows() -> None:
    assert csv_text([{"a": 1, "b": 0.12345678}, {"a": None, "c": "x"}]) == "a,b,c\n1,0.123457,\n,,x\n"


def test_configs_are_read_from_the_checkout() -> None:
    assert config_folder() == Path(__file__).parents[3] / "configs"


def test_drawing_is_reproducible_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with canvas(2, 1) as drawing:
            drawing.subplots().plot([0, 1], [1, 0])
            save(drawing, tmp_path / name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def test_a_stopped_run_stops_the_figure(tmp_path: Path) -> None:
    asked = []

    def fit(name: str, configs: object, folder: Path) -> int:
        asked.append((name, folder))
        return 130 if len(asked) == 2 else 0

    assert load_figure("1a").compute(tmp_path, "small", fit) == 130
    assert asked == [("mf_exact", tmp_path / "runs" / "mf_exact"), ("mf_exact_decay", tmp_path / "runs/mf_exact_decay")]


def test_numbers_are_computed_once(tiny: Callable[[str], Path], tmp_path: Path, monkeypatch) -> None:
    tiny("appendix-a")
    figure = load_figure("appendix-a")
    assert figure.compute(tmp_path, "small", refuse) == 0
    rows = figure.table(tmp_path)
    monkeypatch.setattr(type(figure), "rows", refuse)
    assert figure.compute(tmp_path, "small", refuse) == 0
    assert figure.table(tmp_path) == rows
    with pytest.raises(ValueError, match="computed with other settings"):
        figure.compute(tmp_path, "paper", refuse)


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"rows": []})])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "appendix-a.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match="not written by dop figure") as caught:
        load_figure("appendix-a").table(tmp_path)
    assert str(path) in str(caught.value)
