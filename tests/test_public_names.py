"""Public names at the root of the package, which are imported when they are first used."""

import importlib
import subprocess
import sys

import pytest

import dop_lightning

GUESSED = {
    *("recover_image", "Recovery", "RobustPCA"),
    *("DoubleOverparameterization", "RecoveryCallback", "RecoveryDataModule"),
    *("ImageDataModule", "MatrixDataModule", "SceneDataModule", "VectorDataModule"),
    *("Problem", "ProblemBatch", "Method", "ConvexMethod"),
    *("Signal", "Operator", "Corruption", "Noise", "StepRule"),
}
"""Names that a user would look for, including the base classes of custom parts."""

LIGHT = """
import sys, dop_lightning
heavy = {"torch", "pytorch_lightning", "numpy", "dop_lightning.engine", "typing"} & set(sys.modules)
assert not heavy, heavy
"""

ALONE = """
import importlib, os, sys
import pytorch_lightning, jsonargparse, matplotlib.pyplot, sklearn.base
for name in sys.argv[1:]:
    if not (child := os.fork()):
        if "." in name:
            print(name, importlib.import_module(name).__name__)
        else:
            print(name, getattr(importlib.import_module("dop_lightning"), name).__name__)
        sys.exit()
    if os.waitpid(child, 0)[1]:
        sys.exit(name)
"""


def test_all_public_names_exist() -> None:
    assert set(dop_lightning.__all__) == set(dop_lightning.PUBLIC) == GUESSED
    assert sorted(dop_lightning.__all__, key=str) == dop_lightning.__all__


@pytest.mark.parametrize("name", sorted(GUESSED))
def test_a_public_name(name: str) -> None:
    assert name in dir(dop_lightning)
    found = getattr(dop_lightning, name)
    assert found is getattr(importlib.import_module(dop_lightning.PUBLIC[name]), name)
    assert found.__doc__


@pytest.mark.slow
def test_each_public_name_can_be_the_first_import() -> None:
    names = sorted({dop_lightning.PUBLIC[name]: name for name in GUESSED}.values())  # one per module
    rooms = ("lightning.module", "lightning.callbacks", "lightning.data", "engine", "engine.steps", "engine.convex")
    names += [f"dop_lightning.{room}" for room in (*rooms, "paper.theory", "model.signals")]
    done = subprocess.run([sys.executable, "-c", ALONE, *names], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [word for name in names for word in (name, name)]


def test_package_avoids_heavy_imports() -> None:
    done = subprocess.run([sys.executable, "-S", "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_names_are_not_found() -> None:
    with pytest.raises(AttributeError, match="module 'dop_lightning' has no attribute 'recover_images'"):
        _ = dop_lightning.recover_images  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'recover_images'"):
        from dop_lightning import recover_images  # type: ignore[attr-defined] # noqa: F401
