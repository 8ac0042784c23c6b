"""Tiny sweeps, and a cluster that is a few scripts."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import yaml

PROBLEM = "n12-r1-gross-outliers-0.1-seed0"

BASE = {
    "model": {"tau": 2e-3, "block": 50, "evaluate_every": 100},
    "data": {
        "class_path": "MatrixDataModule",
        "init_args": {
            "n": 12,
            "rank": 1,
            "noise": {"class_path": "dop_lightning.problems.noise.GrossOutliers", "init_args": {"ratio": 0.1}},
        },
    },
    "files": {"most_pictures": 0},
    "trainer": {"max_steps": 100, "accelerator": "cpu"},
}

ENDLESS = ["--trainer.max_steps", "100000000", "--checkpoint.every_minutes", "60"]
"""Settings of a run that only a signal ends."""


def write_configs(folder: Path) -> None:
    """``base.yaml``, and two methods to put over it."""
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    (folder / "plain.yaml").write_text("model: {corruption: null}\n")
    (folder / "slow.yaml").write_text("model: {tau: 1.0e-3}\n")


def result(run: Path) -> dict[str, object]:
    return json.loads((run / PROBLEM / "result.json").read_text())


def has_begun(run: Path) -> bool:
    """Whether an iteration of a run is evaluated."""
    curves = run / "metrics.csv"
    return curves.exists() and len(curves.read_text(encoding="utf-8").splitlines()) > 1


def until(happens: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


SCRIPTS = {
    # as sbatch does: the script as many times as the array has entries, each in the background
    "sbatch": """
        cp "$1" "$CLUSTER/script.sh"
        pwd > "$CLUSTER/where"
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
        export SLURM_JOB_ID=42 SLURM_NTASKS=1 SLURM_JOB_NAME=dop SLURM_JOB_NODELIST=here SLURM_PROCID=0 SLURM_LOCALID=0
        if [ -z "$last" ]; then bash "$1" > "$CLUSTER/output" 2>&1 &
        else
            export SLURM_ARRAY_JOB_ID=42
            for task in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID=$task bash "$1" > "$CLUSTER/output_$task" 2>&1 & done
        fi
        echo "Submitted batch job 42"
        """,
    "srun": """
        while [ "${1#--}" != "$1" ]; do
            case "$1" in --output) output="$2"; shift 2;; --error) error="$2"; shift 2;; *) shift;; esac
        done
        names() { echo "$1" | sed "s/%A/42/; s/%a/$SLURM_ARRAY_TASK_ID/; s/%j/42/; s/%t/0/"; }
        echo $$ > "$CLUSTER/pid_${SLURM_ARRAY_TASK_ID:-0}"
        exec "$@" >> "$(names "$output")" 2>> "$(names "$error")"
        """,
    "squeue": """
        cat "$CLUSTER/queue" 2> /dev/null
        exit 0
        """,
    "sacct": """
        echo 'JobID|State|NodeList'
        """,
    "scontrol": """
        echo "$@" >> "$CLUSTER/scontrol"
        """,
}


def make_cluster(folder: Path) -> Path:
    """Commands of SLURM that run jobs at once on this machine and keep what they were given in the folder."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name, text in SCRIPTS.items():
        script = commands / name
        script.write_text(f"#!/bin/bash\nexport CLUSTER={folder}\n{text}")
        script.chmod(0o755)
    return commands


def put_first(commands: Path) -> str:
    """The PATH with a folder before the others."""
    return os.pathsep.join([str(commands), os.environ["PATH"]])
