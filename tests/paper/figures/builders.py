"""Configs of the paper's figures at a tiny size."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from dop_lightning.paper.figures import configs

TIME = {"model": {"tau": "auto", "steps": {"class_path": "GradientDescent", "init_args": {"horizon": 0.5}}}}
DATA = {"data": {"init_args": {"n": 12, "rank": 1, "seeds": 2}}, "model": {"block": 100, "evaluate_every": 100}}
NOISE = [{"class_path": "dop_lightning.problems.noise.GrossOutliers", "init_args": {"ratio": p}} for p in (0.1, 0.4)]


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries over each other."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            known = result.get(key)
            result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def factor(rank: int, tau: float) -> dict[str, Any]:
    return merged(DATA, {"model": {"signal": {"init_args": {"rank": rank}}, "tau": tau}, "trainer": {"max_steps": 600}})


CELLS = merged(DATA, {"data": {"init_args": {"rank": [1, 3], "noise": NOISE}}, "trainer": {"max_steps": 300}})
CELLS["files"] = {"most_pictures": 1}
NETWORK = {"signal": {"init_args": {"width": 4, "scales": 2, "input_channels": 4, "precision": "fp32"}}}
PHOTOGRAPH = {
    "model": {**NETWORK, "tau": 0.5, "alpha": 20.0, "evaluate_every": 10},
    "data": {"init_args": {"images": "camera", "resize": 16}},
    "trainer": {"max_steps": 20},
    "tensorboard": {"most_runs": 0},
    "files": {"most_pictures": 0},
}
PHOTOGRAPHS = merged(PHOTOGRAPH, {"data": {"init_args": {"images": ["camera", "chelsea"]}}})
IMPULSES = [{"class_path": "dop_lightning.problems.noise.SaltAndPepper", "init_args": {"ratio": p}} for p in (0.1, 0.7)]
LEVELS = merged(PHOTOGRAPH, {"data": {"init_args": {"noise": IMPULSES}}})
GRID = merged(LEVELS, PHOTOGRAPHS, {"data": {"init_args": {"seeds": 1}}})
WIDER = merged(PHOTOGRAPH, {"model": {"signal": {"init_args": {"width": 6}}}})

TINY: dict[str, dict[str, dict[str, Any]]] = {
    "1a": {
        "mf_exact": factor(1, 3e-3),
        "mf_exact_decay": merged(factor(1, 3e-2), {"model": {"steps": {"init_args": {"decay": 0.98}}}}),
        "mf_over": factor(12, 3e-3),
        "dop": merged(DATA, {"model": {"tau": 2e-3}, "trainer": {"max_steps": 600}}),
    },
    "1b": {
        f"{method}_{size}": overlay
        for method in ("dip_l1", "dop")
        for size, overlay in (("narrow", PHOTOGRAPH), ("middle", PHOTOGRAPH), ("wide", WIDER))
    },
    "2a": {
        "dop": merged(
            DATA,
            {"data": {"init_args": {"alphas": [0.3, 1.0, 3.0]}}, "model": {"tau": 2e-3, "steps": None}},
            {"trainer": {"max_steps": 400}},
        )
    },
    "2bc": {
        "dop": merged(CELLS, {"model": {"tau": 1e-3}}),
        "dop_auto": merged(CELLS, TIME),
        "dop_limit": CELLS,
        "convex": CELLS,
        "convex_psd": CELLS,
    },
    "3": dict.fromkeys(("dip", "dip_l1", "dop"), PHOTOGRAPHS),
    "4": {
        f"{method}{part}": overlay
        for method in ("dip_l1", "dop", "default")
        for part, overlay in (("", PHOTOGRAPHS), ("_levels", LEVELS))
    },
    "5": dict.fromkeys(("dip", "dip_l1", "dop"), LEVELS),
    "grid": {
        **dict.fromkeys(("dip", "dip_l1", "dop"), GRID),
        "default": merged(GRID, {"model": {"steps": {"init_args": {"every": 5}}, "alpha": 60.0}}),
    },
    "theorem-1": {
        "": {
            "n": 4,
            "measurements": 10,
            "rank": 1,
            "outliers": 1,
            "seeds": 2,
            "alphas": [0.5, 1.0],
            "gammas": [1e-2, 1e-5],
            "descent": {"gammas": [1e-2], "tau": 2e-2, "time": 60.0},
        }
    },
    "appendix-a": {"": {"columns": 12, "rows": 3, "spread": 1.0, "rates": 1, "seeds": 2, "iterations": 300}},
}
"""What each run of a figure is laid over with; of a figure without runs, its settings."""


def write_tiny(name: str, folder: Path) -> Path:
    """Copy the configs of a figure to ``folder`` with a tiny size for scale ``small``, and return their folder."""
    own = folder / "paper" / name
    shutil.copytree(configs.figure_folder(name), own)
    for run, overlay in TINY[name].items():
        path = own / (f"small/{run}.yaml" if run else "small.yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(overlay), encoding="utf-8")
    return own
