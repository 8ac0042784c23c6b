"""Old names of modules and of their content."""

import ast
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import dop_lightning
from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.foundation.moved import (
    MODULES,
    NAMES,
    REMOVAL,
    SCATTERED,
    MovedModules,
    install,
    new_class_paths,
    new_name,
    show_warnings,
)
from dop_lightning.foundation.names_of_0_2 import MODULES_OF_0_2, NAMES_OF_0_2
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.problems.problem import Problem

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

LINES = [line.split() for line in (HERE / "modules_0_1.txt").read_text(encoding="utf-8").splitlines()]
OLD = {old: (new, names) for old, new, *names in LINES}
"""Each module of version 0.1, what it is now, and its names if the reference of version 0.1 had it.

Constants and helpers that no longer exist are left out; CHANGELOG.md lists what replaces them.
"""

CALLABLE = {"fingerprint"}
"""Functions whose names are now those of modules, which can be called."""

ROOMS = ("cli", "engine", "problems", "runs")
"""Modules of version 0.1 whose names are now those of rooms."""


@pytest.fixture(autouse=True)
def _as_if_never_imported() -> Iterator[None]:
    """Old names warn when they are imported first."""
    forget()
    yield
    forget()


def forget() -> None:
    for name in list(sys.modules):
        old = name.removeprefix("dop_lightning.")
        if old in SCATTERED or (name.startswith("dop_lightning.") and new_name(old) is not None):
            del sys.modules[name]
            vars(dop_lightning).pop(old, None)
    for room in ROOMS:
        for name in NAMES[room]:
            vars(sys.modules[f"dop_lightning.{room}"]).pop(name, None)


def warnings_of(act: Callable[[], object]) -> tuple[object, list[str]]:
    """Return the result of a function, and the messages of its deprecation warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = act()
    assert {warning.category for warning in caught} <= {DeprecationWarning}
    return result, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("old", [old for old in OLD if old not in (*ROOMS, *SCATTERED)])
def test_an_old_module_is_the_new_one(old: str) -> None:
    new, names = OLD[old]
    parent = f"dop_lightning.{old}".rpartition(".")[0]
    _, before = warnings_of(lambda: importlib.import_module(parent))
    module, said = warnings_of(lambda: importlib.import_module(f"dop_lightning.{old}"))
    assert module is sys.modules[f"dop_lightning.{new}"]
    assert module.__spec__.name == module.__name__ == f"dop_lightning.{new}"
    expected = f"dop_lightning.{old} is now dop_lightning.{new}; the old name will be removed in version {REMOVAL}"
    moved_with_its_package = old not in MODULES
    assert said == ([] if moved_with_its_package else [expected])
    assert len(before) == (parent != "dop_lightning" and parent.removeprefix("dop_lightning.") not in SCATTERED)
    assert warnings_of(lambda: importlib.import_module(f"dop_lightning.{old}")) == (module, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("old", [*ROOMS, *SCATTERED])
def test_names_of_a_divided_module(old: str) -> None:
    module = importlib.import_module(f"dop_lightning.{old}")
    natural = getattr(module, "PUBLIC", {})
    assert {*OLD[old][1]} <= {*NAMES[old], *natural, *CALLABLE}
    for name, place in NAMES[old].items():
        new, _, renamed = place.partition(":")
        new, renamed = f"dop_lightning.{new}".rstrip("."), renamed or name
        found, said = warnings_of(lambda name=name: getattr(module, name))
        assert found is getattr(importlib.import_module(new), renamed)
        expected = (
            f"dop_lightning.{old}.{name} is now {new}.{renamed}; the old name will be removed in version {REMOVAL}"
        )
        assert said == [expected]
        assert warnings_of(lambda name=name: getattr(module, name)) == (found, [])
    with pytest.raises(AttributeError, match=f"module 'dop_lightning.{old}' has no attribute 'nothing'"):
        _ = module.nothing


def test_warning_refers_to_the_line_of_the_import() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"dop_lightning\.noise is now dop_lightning\.problems\.noise"
    ) as caught:
        from dop_lightning.noise import GrossOutliers as Old  # type: ignore[import-not-found]
    assert Old is GrossOutliers
    assert (len(caught), caught[0].filename) == (1, __file__)
    with pytest.warns(DeprecationWarning, match=r"dop_lightning\.problems\.problem\.rename") as caught:
        from dop_lightning.problems import rename  # noqa: F401
    assert (len(caught), caught[0].filename) == (1, __file__)


def test_rooms_have_their_public_names_without_a_warning() -> None:
    from dop_lightning import problems

    assert problems.Problem is Problem
    for room in ROOMS:
        module = importlib.import_module(f"dop_lightning.{room}")
        for name, place in getattr(module, "PUBLIC", {}).items():
            assert getattr(module, name) is getattr(importlib.import_module(place), name)


def test_old_modules_do_not_hide_new_ones() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for old in OLD:
            importlib.import_module(f"dop_lightning.{old}")
    for name, module in list(sys.modules.items()):
        parent, _, last = name.rpartition(".")
        if parent.startswith("dop_lightning") and isinstance(module, ModuleType):
            assert getattr(sys.modules[parent], last) is module


def test_the_command_of_an_older_installation(capsys: pytest.CaptureFixture[str]) -> None:
    from dop_lightning.cli import main

    with pytest.warns(DeprecationWarning, match=r"dop_lightning\.cli\.main is now dop_lightning\.cli\.main\.main"):
        assert main(["--help"]) == 0  # type: ignore[operator]
    assert "usage: dop" in capsys.readouterr().out


def test_a_function_whose_name_is_now_that_of_a_module() -> None:
    from dop_lightning.runs import fingerprint

    config = "model: {tau: 1}\ndata: {}\n"
    with pytest.warns(DeprecationWarning, match=r"is now dop_lightning\.runs\.fingerprint\.fingerprint"):
        found = fingerprint(config, [])  # type: ignore[operator]
    assert found == fingerprint.fingerprint(config, [])


def test_unknown_names_are_not_found() -> None:
    finder = MovedModules()
    assert finder.find_spec("numpy") is None
    assert finder.find_spec("noise") is None
    assert finder.find_spec("dop_lightning.model.signals") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("dop_lightning.nothing")
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before


def test_class_paths_in_a_config() -> None:
    config = (
        "a: {class_path: dop_lightning.files.ImageFormat}\nb:\n- class_path: dop_lightning.callbacks.DualCertificate"
    )
    said = new_class_paths(
        f"{config}\nc: dop_lightning.noise.X\nd:\n  class_path: noise.X\ne:\n  class_path: dop_lightning"
    )
    assert yaml.safe_load(said) == {
        "a": {"class_path": "dop_lightning.images.formats.ImageFormat"},
        "b": [{"class_path": "dop_lightning.paper.certificate_callback.DualCertificate"}],
        "c": "dop_lightning.noise.X",
        "d": {"class_path": "noise.X"},
        "e": {"class_path": "dop_lightning"},
    }


def test_a_name_that_left_its_package() -> None:
    with pytest.warns(DeprecationWarning, match=r"dop_lightning\.callbacks is now"):
        module = importlib.import_module("dop_lightning.callbacks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert module.DualCertificate.__module__ == "dop_lightning.paper.certificate_callback"


def test_the_command_shows_the_warnings() -> None:
    """Python would hide what a library imports."""
    with warnings.catch_warnings():
        show_warnings()
        action, message, category, module, _ = warnings.filters[0]
    assert (action, category, module) == ("default", DeprecationWarning, None)
    assert message.match("dop_lightning.noise is now …")


def test_old_class_paths_fit_and_are_saved_as_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dop) -> None:
    settings = {
        "data": {
            "class_path": "dop_lightning.data.MatrixDataModule",
            "init_args": {
                "n": 12,
                "rank": 1,
                "noise": {"class_path": "dop_lightning.noise.GrossOutliers", "init_args": {"ratio": 0.1}},
            },
        },
        "model": {"signal": {"class_path": "dop_lightning.signals.SymmetricFactor", "init_args": {"scale": 0.001}}},
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    files = ["--config", str(ROOT / "configs" / "matrix.yaml"), "--config", "old.yaml"]
    options = ["--trainer.max_steps", "2", "--trainer.default_root_dir", "run", "--trainer.accelerator", "cpu"]
    said, warned = warnings_of(lambda: dop("fit", *files, *options))
    assert said.status == 0, said.err
    for old, new in (("data", "lightning.data"), ("noise", "problems.noise"), ("signals", "model.signals")):
        assert sum(f"dop_lightning.{old} is now dop_lightning.{new};" in text for text in warned) == 1
    saved = (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    assert "class_path: dop_lightning.problems.noise.GrossOutliers" in saved
    assert not [line for line in saved.splitlines() if "class_path: dop_lightning." in line and old_in(line)]


def old_in(text: str) -> list[str]:
    """The dotted names in a text that are of version 0.1."""
    found = []
    for word in text.split():
        parts = word.strip("\"',").split(".")
        if parts[0] == "dop_lightning" and len(parts) > 1 and (parts[1] in SCATTERED or new_name(parts[1]) is not None):
            found.append(word)
    return found


@pytest.mark.parametrize("folder", ["dop_lightning", "scripts", "tests", "configs"])
def test_package_does_not_use_old_names(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.yaml"):
        assert old_in(file.read_text(encoding="utf-8")) == [], file
    for file in (ROOT / folder).rglob("*.py"):
        if file == Path(__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                moved = NAMES.get(node.module.removeprefix("dop_lightning."), {})
                assert not moved.keys() & {alias.name for alias in node.names}, file
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            assert [name for name in names if old_in(name)] == [], file


@pytest.mark.parametrize("old", sorted(MODULES_OF_0_2))
def test_a_module_renamed_in_version_0_2(old: str) -> None:
    new = f"dop_lightning.{MODULES_OF_0_2[old]}"
    module, said = warnings_of(lambda: importlib.import_module(f"dop_lightning.{old}"))
    assert module is sys.modules[new]
    assert said == [f"dop_lightning.{old} is now {new}; the old name will be removed in version {REMOVAL}"]


@pytest.mark.parametrize("name", [f"{module}.{name}" for module in NAMES_OF_0_2 for name in NAMES_OF_0_2[module]])
def test_a_name_renamed_in_version_0_2(name: str) -> None:
    place, _, old = name.rpartition(".")
    new = NAMES_OF_0_2[place][old]
    module = importlib.import_module(f"dop_lightning.{place}")
    vars(module).pop(old, None)
    found, said = warnings_of(lambda: getattr(module, old))
    assert found is getattr(module, new)
    start = f"dop_lightning.{place}"
    assert said == [f"{start}.{old} is now {start}.{new}; the old name will be removed in version {REMOVAL}"]
    with pytest.raises(AttributeError, match=f"module '{start}' has no attribute 'nothing'"):
        _ = module.nothing


def test_a_renamed_name_in_a_renamed_module() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dop_lightning.engine.look import Look  # type: ignore[import-not-found]
    assert Look is EvaluatedBatch
    config = "class_path: dop_lightning.engine.look.Look"
    assert new_class_paths(config) == "class_path: dop_lightning.engine.evaluated.EvaluatedBatch"
