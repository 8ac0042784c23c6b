"""Axes, and the points that they make."""

from pathlib import Path

import pytest

from dop_lightning.runs.sweeps.axes import parse_axis, short_names
from dop_lightning.runs.sweeps.points import Point, make_points
from tests.runs.sweeps.builders import write_configs


def points(*axes: str, options: list[tuple[str, str]] | None = None, base: str = "base.yaml") -> list[Point]:
    return make_points([parse_axis(axis) for axis in axes], [base], options or [], Path("out"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("model.alpha=1", ("1",)),
        ("model.alpha=1,2.5e-3,-3", ("1", "2.5e-3", "-3")),
        ("data.seeds=[1,2],[3, 4],5", ("[1,2]", "[3, 4]", "5")),
        ("model.signal={class_path: Factor, init_args: {rank: 2}},Factor", None),
        ("data.images='a,b.png',\"[\"", ("'a,b.png'", '"["')),
        ("model.name=x=y,z", ("x=y", "z")),
        ("model.name=(1,(2,3)), 4", ("(1,(2,3))", "4")),
        ("model.name=\"it's\",'[\"'", ('"it\'s"', "'[\"'")),
    ],
)
def test_values_are_split_outside_brackets_and_quotes(text: str, values: tuple[str, ...] | None) -> None:
    axis = parse_axis(text)
    assert axis.key == text.partition("=")[0]
    assert axis.values == (values or ("{class_path: Factor, init_args: {rank: 2}}", "Factor"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "axis must be KEY=V1,V2"),
        ("model.alpha", "axis must be KEY=V1,V2"),
        ("=1,2", "axis must be KEY=V1,V2"),
        ("model..alpha=1", "axis must be KEY=V1,V2"),
        ("--model.alpha=1", "axis must be KEY=V1,V2"),
        ("model.alpha=", "axis model.alpha must have values"),
        ("model.alpha=1,,2", "axis model.alpha must have values"),
        ("model.alpha=1,2,1", "each value once, got '1' twice"),
        ("model.alpha=[1,2", "must close its brackets"),
        ("model.alpha='1", "must close its brackets and quotes"),
        ("model.alpha=1]", "balanced brackets"),
        ("model.alpha=[1}", "balanced brackets"),
        ("trainer.default_root_dir=a,b", "trainer.default_root_dir cannot be set in a sweep"),
        ("ckpt_path=last", "ckpt_path cannot be set in a sweep"),
    ],
)
def test_a_bad_axis_is_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named.replace("[", r"\[").replace(".", r"\.")):
        parse_axis(text)


def test_titles_are_as_short_as_possible() -> None:
    keys = ["model.alpha", "model.signal.init_args.width", "data.init_args.alpha", "alpha"]
    assert list(short_names(keys).values()) == ["model.alpha", "width", "data.alpha", "alpha"]
    assert short_names(["config", "model.tau"]) == {"config": "config", "model.tau": "tau"}


def test_points_are_all_combinations_in_order() -> None:
    names = [point.name for point in points("model.signal.init_args.width=32,64", "model.alpha=100,-5")]
    assert names == ["width-32_alpha-100", "width-32_alpha--5", "width-64_alpha-100", "width-64_alpha--5"]


def test_names_are_safe_and_do_not_depend_on_the_order_of_values() -> None:
    values = ["../x", "[1, 2]", "1 2", "Factor", "factor", "照片"]
    forth = points(f"model.a={','.join(values)}", "model.b=1,2")
    back = points(f"model.a={','.join(values[::-1])}", "model.b=2,1")
    assert {tuple(point.axes.items()): point.name for point in forth} == {
        tuple(point.axes.items()): point.name for point in back
    }
    names = [point.name for point in forth]
    assert len({name.lower() for name in names}) == 12
    assert all("/" not in name and " " not in name and not name.startswith(".") for name in names)
    assert "a-照片_b-1" in names


def test_the_axis_of_configs_layers_files() -> None:
    one, two, three = points("config=none,a/dip.yaml,a/dip.yaml+b/small.yaml")
    assert (one.name, two.name, three.name) == ("config-none", "config-dip", "config-dip_small")
    assert [point.configs for point in (one, two, three)] == [
        ("base.yaml",),
        ("base.yaml", "a/dip.yaml"),
        ("base.yaml", "a/dip.yaml", "b/small.yaml"),
    ]
    assert one.options == ()


def test_a_part_comes_before_its_settings() -> None:
    (point,) = points(
        "model.signal.init_args.rank=3", options=[("trainer.max_steps", "9"), ("data", "M"), ("model.signal", "Factor")]
    )
    assert point.command == (
        "dop fit --config base.yaml --data=M --trainer.max_steps=9 --model.signal=Factor "
        "--model.signal.init_args.rank=3 --trainer.default_root_dir=out/rank-3"
    )


def test_a_setting_is_given_once() -> None:
    with pytest.raises(ValueError, match=r"specified once, as an axis or as an option, got model\.alpha twice"):
        points("model.alpha=1,2", "model.alpha=3")
    with pytest.raises(ValueError, match=r"got model\.alpha twice"):
        points("model.alpha=1", options=[("model.alpha", "3")])


def test_the_digest_is_of_contents_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    (tmp_path / "copy.yaml").write_bytes((tmp_path / "base.yaml").read_bytes())
    digest = points("model.alpha=1")[0].digest()
    assert points("model.alpha=1", base="copy.yaml")[0].digest() == digest
    assert points("model.alpha=2")[0].digest() != digest
    assert points("model.alpha=1", options=[("model.tau", "1")])[0].digest() != digest
    assert points("model.alpha=1", "config=plain.yaml")[0].digest() != digest
    (tmp_path / "base.yaml").write_text("model: {}\n")
    assert points("model.alpha=1")[0].digest() != digest
