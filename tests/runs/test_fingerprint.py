"""How a run is recognised."""

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from dop_lightning.model.operators import CommutingMeasurements, GaussianMeasurements
from dop_lightning.problems.noise import Noise
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.fingerprint import fingerprint

CONFIG = """
model: {tau: 0.002, alpha: null, block: 100, signal: {class_path: SymmetricFactor, init_args: {rank: 3}}}
data: {class_path: MatrixDataModule, init_args: {n: 12, seeds: 2}}
stable: {tolerance: 0.01}
early_stop: {variance: null, window: 100}
trainer: {max_steps: 100, accelerator: auto, default_root_dir: runs/a}
tensorboard: {images_every: 10}
checkpoint: {every_minutes: 5.0}
ckpt_path: null
"""


def problem(name: str = "a", value: float = 1.0) -> Problem:
    return Problem(name, torch.full((2, 2), value), seed=4, attributes={"n": 2, "noise": "gross_outliers"})


def changed(section: str, key: str, value: object) -> str:
    config = yaml.safe_load(CONFIG)
    if config[section] is None:
        config[section] = value
    else:
        config[section][key] = value
    return yaml.safe_dump(config)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("trainer", "max_steps", 5000),
        ("trainer", "accelerator", "gpu"),
        ("trainer", "devices", 4),
        ("trainer", "default_root_dir", "elsewhere"),
        ("model", "block", 7),
        ("model", "metrics", {"error": {"class_path": "torchmetrics.MeanAbsoluteError"}}),
        ("early_stop", "window", 50),
        ("tensorboard", "images_every", 1),
        ("checkpoint", "every_minutes", 1.0),
        ("ckpt_path", "", "last"),
    ],
)
def test_fingerprint_ignores_irrelevant_settings(section: str, key: str, value: object) -> None:
    assert fingerprint(changed(section, key, value), [problem()]) == fingerprint(CONFIG, [problem()])


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "tau", 0.001),
        ("model", "alpha", 3.0),
        ("model", "signal", {"class_path": "SymmetricFactor", "init_args": {"rank": 4}}),
        ("data", "class_path", "ImageDataModule"),
        ("data", "init_args", {"n": 12, "seeds": 2, "value_range": [0, 5]}),
        ("data", "init_args", {"n": 12, "seeds": 2, "tile": 64}),
        ("stable", "tolerance", 0.1),
        ("early_stop", "variance", "windowed"),
    ],
)
def test_fingerprint_changes_with_settings(section: str, key: str, value: object) -> None:
    assert fingerprint(changed(section, key, value), [problem()]) != fingerprint(CONFIG, [problem()])


def test_fingerprint_changes_with_data() -> None:
    digest = fingerprint(CONFIG, [problem()])
    assert digest == fingerprint(CONFIG, [problem()])
    others = [[problem("b")], [problem(value=2.0)], [problem(), problem("b")], []]
    assert len({digest, *(fingerprint(CONFIG, other) for other in others)}) == 5


def test_fingerprint_changes_with_the_mask() -> None:
    y = torch.eye(2)  # a missing entry is stored as 0
    whole, missing = Problem("a", y), Problem("a", y, mask=torch.eye(2, dtype=torch.bool))
    assert fingerprint(CONFIG, [whole]) != fingerprint(CONFIG, [missing])
    assert fingerprint(CONFIG, [whole]) != fingerprint(CONFIG, [Problem("a", y.view(4, 1))])


def test_fingerprint_changes_with_sensing() -> None:
    def digest(seed: int = 0, **options) -> str:
        return fingerprint(CONFIG, [Problem("a", torch.ones(4), seed=seed, **options)])

    ways = [GaussianMeasurements(4), GaussianMeasurements(4, symmetric=True), CommutingMeasurements(4)]
    digests = [digest(sensing=way, signal_shape=(2, 2)) for way in ways]
    digests += [digest(1, sensing=ways[0], signal_shape=(2, 2)), digest(sensing=ways[0], signal_shape=(3, 3)), digest()]
    assert len(set(digests)) == len(digests)
    assert digest(sensing=GaussianMeasurements(4), signal_shape=(2, 2)) == digests[0]


def test_fingerprint_changes_with_the_ratio() -> None:
    assert len({fingerprint(CONFIG, [Problem("a", torch.ones(4), alpha=a)]) for a in (None, 1.0, 2.0)}) == 3


def test_fingerprint_ignores_file_paths() -> None:
    here, there = (changed("data", "init_args", {"files": [f"{place}/a.npy"]}) for place in ("here", "there"))
    assert fingerprint(here, [problem()]) == fingerprint(there, [problem()])


def test_fingerprint_ignores_the_order_of_settings() -> None:
    backwards = yaml.safe_dump(dict(reversed(yaml.safe_load(CONFIG).items())), sort_keys=False)
    assert fingerprint(backwards, [problem()]) == fingerprint(CONFIG, [problem()])


def of_noise(class_path: str) -> str:
    noise = {"class_path": class_path, "init_args": {"ratio": 0.3}}
    return fingerprint(changed("data", "init_args", {"n": 12, "noise": [noise]}), [problem()])


def test_fingerprint_ignores_modules_of_package_classes() -> None:
    names = ["SaltAndPepper", "dop_lightning.problems.noise.SaltAndPepper", "dop_lightning.noise.SaltAndPepper"]
    assert len({of_noise(name) for name in names}) == 1
    assert of_noise("dop_lightning.noise.GaussianNoise") != of_noise("dop_lightning.noise.SaltAndPepper")


def test_fingerprint_includes_modules_of_custom_classes() -> None:
    names = ["mypackage.Noise", "other.Noise", "Noise", "dop_lightning_extras.Noise", "my.dop_lightning.Noise"]
    assert len({of_noise(name) for name in names}) == len(names)


def test_fingerprint_ignores_modules_of_package_functions() -> None:
    digests = {
        fingerprint(changed("model", "operator", path), [problem()])
        for path in ("dop_lightning.model.operators.operator_of", "dop_lightning.operators.operator_of")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["SaltAndPepper", "dop_lightning.problems.noise.SaltAndPepper"])
def test_fingerprint_equals_for_jsonargparse_class_notation(name: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--noise", type=Noise)
    written = yaml.safe_load(parser.dump(parser.parse_args(["--noise", name, "--noise.ratio", "0.3"])))["noise"]
    assert written["class_path"].startswith("dop_lightning.")
    assert of_noise(written["class_path"]) == of_noise("SaltAndPepper")
