"""Configs with which ``dop separate`` runs ``dop fit``."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dop_lightning.cli import hints
from dop_lightning.cli.options import DEVICES, METHODS, refuse
from dop_lightning.engine.recipe import Piece, Recipe
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.user_paths import user_path
from dop_lightning.images.formats import IMAGE_SUFFIXES
from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.matrices.alpha_search import AlphaChoice, choose_alpha
from dop_lightning.matrices.arrays import MATRIX_SUFFIXES, matrix_suffix, thin_matrix_note
from dop_lightning.matrices.entry_sizes import CONVEX_SPREAD, check_sizes, check_spread
from dop_lightning.matrices.mapped_folder import is_separated
from dop_lightning.matrices.scenes import VIDEO_SUFFIXES
from dop_lightning.matrices.scenes.background import MAX_COMPONENTS
from dop_lightning.matrices.separation import BLOCK, MATRIX, SCENE
from dop_lightning.matrices.storage.places import STORE_SUFFIXES, Place, locate
from dop_lightning.problems.problem import Problem, scale
from dop_lightning.runs.folder import saved_settings
from dop_lightning.runs.growth import recorded_rates
from dop_lightning.runs.pieces import has_pieces


def config(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Return the config of ``dop fit`` for the options, and notes to print.

    Raises:
        ValueError: an option is out of range or does not apply to the data, or matrices and scenes are mixed.
    """
    one_of("device", options.device, DEVICES)
    if DEVICES[options.device] in ("gpu", "mps") and not (gpus := hints.look()).usable:
        raise ValueError(f"no GPU is available: {hints.no_gpu(gpus)}")  # before α is chosen, which is slow
    if options.alpha is not None:
        positive("alpha", options.alpha)
    if options.rank is not None:
        at_least("rank", options.rank, 1)
    at_least("iterations", options.iterations, 1)
    kinds = {data: _is_scene(Path(data)) for data in options.data}
    if len(set(kinds.values())) > 1:
        scenes = [data for data, scene in kinds.items() if scene]
        raise ValueError(f"DATA must not mix matrices and scenes, got the scenes {', '.join(scenes)}")
    return _scene_config(options) if all(kinds.values()) else _matrix_config(options)


def _is_scene(path: Path) -> bool:
    """Return whether data are a video or a folder of pictures; all other data are matrices."""
    path = locate(path).path
    if matrix_suffix(path) in STORE_SUFFIXES:
        return False
    if path.is_dir():
        suffixes = {file.suffix.lower() for file in path.iterdir() if not file.name.startswith(".")}
        pictures = suffixes & set(IMAGE_SUFFIXES)
        tables = {matrix_suffix(file) for file in path.iterdir()} & set(MATRIX_SUFFIXES)
        return bool(pictures - set(MATRIX_SUFFIXES)) or not tables
    if any(mark in path.name for mark in "*?[") and not path.exists():
        return path.suffix.lower() in VIDEO_SUFFIXES
    return matrix_suffix(path) not in MATRIX_SUFFIXES


def _scene_config(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    refuse(options, {"key": None, "index": None, "truth": None, "method": "auto"}, "scenes")
    if options.rank is not None and options.rank > MAX_COMPONENTS:
        raise ValueError(f"rank must be at most {MAX_COMPONENTS} for scenes, got {options.rank}")
    data = {
        "class_path": "SceneDataModule",
        "init_args": {
            "scenes": [str(user_path(scene).resolve()) for scene in options.data],
            "grey": options.grey,
            "pictures": not options.no_pictures,
            "memory": options.max_memory,
            "seeds": [options.seed],
        },
    }
    return _run_config(options, SCENE.recipe(options.rank, options.alpha).model(), data), []


def _matrix_config(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    refuse(options, {"grey": False, "no_pictures": False}, "matrices")
    places = [locate(data) for data in options.data]
    arguments = {
        "files": [str(place.path.absolute()) for place in places],
        "truth": options.truth,
        "key": _array_key(options, places),
        "seeds": [options.seed],
        **({"index": options.index} if options.index else {}),
    }
    folders = [str(place.path.absolute()) for place in places if place.path.is_dir()]
    if any(Path(folder).resolve() == user_path(options.out).resolve() for folder in folders):
        raise ValueError(f"--out must differ from the folder of DATA, got {options.out}")
    module = MatrixDataModule(**arguments)
    module.setup()
    for problem in module.problems:
        if has_pieces(user_path(options.out)) or is_separated(user_path(options.out) / problem.name):
            raise ValueError(
                f"{user_path(options.out) / problem.name} holds the parts of a matrix that was read in pieces; use "
                "another --out"
            )
    method = _matrix_method(options)
    for problem in module.problems:
        check_sizes(problem)
        if method in ("dop", "convex"):
            check_spread(problem, CONVEX_SPREAD if method == "convex" else None)
        if options.rank is not None and options.rank > min(problem.signal_shape):
            smaller = min(problem.signal_shape)
            raise ValueError(f"rank must be at most {smaller}, the smaller side of {problem.name}, got {options.rank}")
    shapes = [(problem.name, thin_matrix_note(problem.signal_shape)) for problem in module.problems]
    thin = [f"Warning: {name}: {note}" for name, note in shapes if note]
    data = {"class_path": "MatrixDataModule", "init_args": arguments}
    if method == "convex":
        return _run_config(options, _convex_settings(options), data), thin
    if method != "dop":
        return _run_config(options, _robust_settings(options, method), data), thin
    unit = statistics.median(scale(problem) for problem in module.problems) ** 0.5
    recipe = _with_saved_scale(MATRIX.recipe(options.rank, options.alpha, unit), saved_settings(options.out, "model"))
    notes: list[str] = []
    if recipe.alpha is None:
        recipe, notes = _choose_alphas(recipe, options, module.problems)
    return _run_config(options, recipe.model(), data), [*thin, *notes]


def _matrix_method(options: argparse.Namespace) -> str:
    """Return the method for matrices: that of the options, or of the run that is resumed."""
    method = one_of("method", options.method, METHODS)
    if method == "auto":
        method = _saved_method(options) or ("dop" if options.alpha is not None else "auto")
    if options.alpha is not None and method == "projections":
        raise ValueError(f"--alpha does not apply to --method projections, got {options.alpha:g}")
    return method


def _array_key(options: argparse.Namespace, places: Sequence[Place]) -> str | None:
    """Return the array of files that are read into memory: from ``--key``, or after ``::``.

    Raises:
        ValueError: the files do not select the same array.
    """
    arrays = {place.array for place in places}
    if arrays == {None}:
        return str(options.key) if options.key is not None else None
    if len(arrays) > 1 or options.key is not None:
        given = ", ".join(options.data)
        raise ValueError(f"matrices that are read into memory must name one array, by --key or after ::, got {given}")
    return str(*arrays)


def _saved_method(options: argparse.Namespace) -> str | None:
    """Return the method of the run in the folder of the results, if any. ``--alpha`` selects DOP."""
    saved = saved_settings(options.out, "model")
    if saved.get("solver"):
        return "convex"
    if separation := saved.get("separation"):
        falls_back = (separation.get("init_args") or {}).get("fallback", True)
        return ("dop" if options.alpha is not None else "auto") if falls_back else "projections"
    return "dop" if saved.get("signal") else None


def _robust_settings(options: argparse.Namespace, method: str) -> dict[str, Any]:
    # The iterations for choosing α are part of the method: a resumed run keeps them, regardless of --iterations.
    saved = (saved_settings(options.out, "model").get("separation") or {}).get("init_args") or {}
    iterations = saved.get("iterations", options.iterations)
    arguments = {"fallback": method == "auto", "rank": options.rank, "iterations": iterations}
    section = {"class_path": "RobustSeparation", "init_args": arguments}
    return {"separation": section, "block": BLOCK, "evaluate_every": BLOCK}


def _accelerator(options: argparse.Namespace, model: Mapping[str, Any]) -> str:
    """Return Lightning's name of the device. Projections need float64, which Apple's GPUs do not support."""
    if "separation" in model and options.device in ("auto", "mps") and torch.backends.mps.is_available():
        return "cpu"
    return DEVICES[options.device]


def _convex_settings(options: argparse.Namespace) -> dict[str, Any]:
    if options.rank is not None:
        raise ValueError(f"--rank does not apply to --method convex, got {options.rank}")
    section = {"class_path": "InexactALM", "init_args": {"svd": "partial"}}
    return {"solver": section, "alpha": options.alpha, "block": BLOCK, "evaluate_every": BLOCK}


def _with_saved_scale(recipe: Recipe, saved: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the initial scale of the saved run, if any, which is that of its first matrices."""

    def started(piece: Piece, name: str) -> Piece:
        arguments = (saved.get(name) or {}).get("init_args") or {}
        scale_of_run = arguments.get("scale", piece.arguments["scale"])
        return replace(piece, arguments={**piece.arguments, "scale": scale_of_run})

    return replace(recipe, signal=started(recipe.signal, "signal"), corruption=started(recipe.corruption, "corruption"))


def _choose_alphas(
    recipe: Recipe, options: argparse.Namespace, problems: Sequence[Problem]
) -> tuple[Recipe, list[str]]:
    """Choose α per matrix: that of a resumed run, otherwise the one that predicts held-out entries best.

    Returns:
        The recipe with these values, and one line to print per choice.
    """
    was_chosen = isinstance(saved_settings(options.out, "model").get("alpha"), list)
    of_run = recorded_rates(options.out, problems) if was_chosen else [{} for _ in problems]
    method = recipe.method()
    alphas: list[float] = []
    notes = []
    for problem, rates in zip(problems, of_run, strict=True):
        if rates.get("alpha") is not None:
            alphas.append(rates["alpha"])
            continue
        choice = choose_alpha(problem, method, max_iterations=options.iterations)
        alphas.append(round(choice.alpha, 6))
        notes.append(_alpha_note(problem, choice))
    return replace(recipe, alpha=alphas), notes


def _alpha_note(problem: Problem, choice: AlphaChoice) -> str:
    unit = max(problem.signal_shape) ** 0.5
    tried = f", the best of {len(choice.scales)} values at predicting held-out entries" if choice.scales else ""
    return f"{problem.name}: alpha {choice.alpha:.3g} ({choice.alpha / unit:.3g}·√max(n, m){tried})"


def _run_config(options: argparse.Namespace, model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": dict(model),
        "data": data,
        "trainer": {
            "max_steps": options.iterations,
            "default_root_dir": str(options.out),
            "accelerator": _accelerator(options, model),
        },
    }
