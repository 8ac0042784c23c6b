"""Each recipe is one object: the command line, Python and the files of ``configs/`` say the same as it."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dop_lightning.cli import recover as recover_options
from dop_lightning.cli import separate as separate_options
from dop_lightning.cli.configs import recover, separate
from dop_lightning.cli.experiments import lightning_cli, runner
from dop_lightning.engine.recipe import Piece, Recipe
from dop_lightning.engine.steps import GradientDescent
from dop_lightning.images.presets import PRESETS
from dop_lightning.images.recover import recover_image
from dop_lightning.matrices.robust_pca import RobustPCA
from dop_lightning.matrices.separation import MATRIX, SCENE
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SymmetricFactor

CONFIGS = Path(__file__).parents[2] / "configs"

DIFFERENT = {
    "image": {"alpha": 400, "signal.width": 64},
    "paper/grid/default": {"evaluate_every": 50, "signal.fast_noise": None},
}
"""Where a file differs from its recipe on purpose: a size for a laptop; curves with more points, and old results."""


def resolved(settings: dict[str, Any] | list[str]) -> dict[str, Any]:
    """A config as it is saved with a run: with whole paths and all defaults."""
    runner.prepare()
    cli = lightning_cli._parse("fit", settings)
    return yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))


def from_files(*names: str) -> dict[str, Any]:
    return resolved([part for name in names for part in ("--config", str(CONFIGS / f"{name}.yaml"))])


def from_recipe(recipe: Recipe, data: dict[str, Any]) -> dict[str, Any]:
    return resolved({"model": recipe.model(), "data": data})


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings of ``other`` that are not those of ``one``, by their path without ``init_args``."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            name = path if key == "init_args" else f"{path}.{key}".lstrip(".")
            yield from differences(one.get(key), other.get(key), name)
    elif one != other:
        yield path, other


@pytest.mark.parametrize(
    ("preset", "files"),
    [("default", ["image", "refine"]), ("best", ["paper/grid/default"]), ("paper", ["image"])],
)
def test_image_configs_equal_the_preset(preset: str, files: list[str]) -> None:
    chosen = PRESETS[preset]
    recipe = chosen.recipe()
    if not chosen.refined:  # the file leaves it to the machine whether the network runs by kernels
        recipe.signal.arguments.pop("fused")  # type: ignore[attr-defined]
    found = from_files(*files)
    expected = from_recipe(recipe, {"class_path": "ImageDataModule", "init_args": {"images": "astronaut"}})
    assert dict(differences(expected["model"], found["model"])) == DIFFERENT.get(files[-1], {})
    if chosen.refined:
        assert found["trainer"]["max_steps"] == chosen.iterations


def test_scene_config_equals_the_command() -> None:
    found = from_files("scene")
    expected = from_recipe(SCENE.recipe(), {"class_path": "SceneDataModule", "init_args": {"scenes": "video.mp4"}})
    assert found["model"] == expected["model"]
    assert found["trainer"]["max_steps"] == SCENE.iterations


def test_commands_use_their_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.default_rng(0).normal(size=(9, 8)))
    options = recover_options.parser().parse_args(["a.npy", "--out", "out"])
    settings, _ = recover.config(options)
    assert settings["model"] == PRESETS["default"].recipe(block=settings["model"]["block"]).model()
    options = separate_options.parser().parse_args(["a.npy", "--out", "out", "--alpha", "3"])
    settings, _ = separate.config(options)
    unit = float(np.median(np.abs(np.load("a.npy")))) ** 0.5
    assert settings["model"]["signal"]["init_args"]["scale"] == pytest.approx(MATRIX.start * unit, rel=0.1)
    assert settings["model"]["steps"] == MATRIX.recipe().model()["steps"]
    options = separate_options.parser().parse_args(["a.mp4", "--out", "out", "--alpha", "3", "--rank", "2"])
    settings, _ = separate.config(options)
    assert settings["model"] == SCENE.recipe(rank=2, alpha=3).model()
    assert options.iterations == SCENE.iterations == MATRIX.iterations


def test_python_uses_the_same_recipes() -> None:
    assert inspect.signature(recover_image).parameters["preset"].default == "default"
    defaults = RobustPCA().get_params()
    assert (defaults["tol"], defaults["max_iter"]) == (MATRIX.tolerance, MATRIX.iterations)


def test_recipe_omits_common_settings() -> None:
    recipe = Recipe(Piece(SymmetricFactor), Piece(HadamardCorruption, {"scale": 1e-3}), "auto", None, 25, 50)
    method = recipe.method()
    assert isinstance(method.loss, SquaredLoss)
    assert isinstance(method.steps, GradientDescent)
    assert method.theta_optimizer is None
    assert recipe.model() == {
        "signal": {"class_path": "SymmetricFactor"},
        "corruption": {"class_path": "HadamardCorruption", "init_args": {"scale": 1e-3}},
        "tau": "auto",
        "alpha": None,
        "block": 25,
        "evaluate_every": 50,
    }
