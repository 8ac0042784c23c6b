"""The commands of docs/cluster.md, run with processes on a CPU, at a tiny size."""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dop_lightning.runs.results import read_results
from tests.documents.harness import DOCS, ROOT, commands, prepare

COMMANDS = commands(DOCS / "cluster.md")

TINY = ["--trainer.max_steps", "4", "--trainer.accelerator", "cpu", "--progress.lines", "0"]
TINY_IMAGES = ["--data.resize", "32", "--data.seeds", "1", "--model.signal.init_args.width", "4"]
TINY_IMAGES += ["--data.images", "[camera, coffee]", "--model.signal.init_args.scales", "2"]
TINY_MATRICES = ["--data.n", "[12, 9]", "--data.rank", "[2, 1]", "--data.seeds", "1"]

SRUN = """#!/bin/bash
# Replaces srun: two nodes with two tasks each.
shift
for task in 0 1 2 3; do
    SLURM_NTASKS=4 SLURM_NNODES=2 SLURM_NTASKS_PER_NODE=2 SLURM_NODELIST=localhost SLURM_JOB_NAME=dop \\
        SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) SLURM_NODEID=$((task / 2)) "$@" &
    tasks[$task]=$!
done
status=0
for task in 0 1 2 3; do
    wait "${tasks[$task]}" || { ended=$?; [ $ended -gt $status ] && status=$ended; }
done
exit $status
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def tiny(command: str) -> list[str]:
    """The words of a command, and what makes it short: fewer devices, and one process per machine of torchrun."""
    small = TINY_IMAGES if "image.yaml" in command else TINY_MATRICES if "matrix_grid.yaml" in command else []
    fewer = command.replace(".devices 8", ".devices 2").replace("--nproc-per-node 2", "--nproc-per-node 1")
    words = shlex.split(re.sub("--trainer.max_steps \\d+ ", "", fewer))
    return [*words, *small, *TINY] if "dop table" not in command else words


def only(pattern: str, *others: str) -> list[str]:
    return [line for line in COMMANDS if re.match(pattern, line) and all(other in line for other in others)]


def names(run: Path) -> set[str]:
    results = read_results(run)
    assert {result["status"] for result in results} == {"done"}
    return {result["problem"] for result in results}


def test_every_command_is_tested() -> None:
    tried = [*only("dop fit"), *only("torchrun"), *only(r"(DOP_OPTIONS=\S+ )?sbatch"), *only("dop (sweep|table)")]
    assert sorted(tried) == sorted(COMMANDS)
    assert (len(only("dop fit")), len(only("torchrun")), len(only("dop (sweep|table)"))) == (3, 2, 6)


@pytest.mark.slow
def test_grids_on_one_device_and_on_several(dop) -> None:
    images, matrices, several = only("dop fit")
    assert dop(*tiny(matrices)[1:]).status == 0
    assert dop(*tiny(images)[1:]).status == 0
    said = dop(*tiny(several)[1:])
    assert said.status == 0, said.err
    (once,) = Path("runs/image_grid").iterdir()
    assert names(once) == names(Path("runs/photos"))
    assert len(names(once)) == 6
    for problem in names(once):
        both = [(run / problem / "recovered.npy").read_bytes() for run in (once, Path("runs/photos"))]
        assert both[0] == both[1]


def test_torchrun() -> None:
    agents = []
    for command in only("torchrun"):
        words = [sys.executable, "-m", "torch.distributed.run", *tiny(command)[1:]]
        port = str(20000 + os.getpid() % 20000)
        agents.append(subprocess.Popen([port if word == "29500" else word for word in words]))
    assert [agent.wait(timeout=200) for agent in agents] == [0, 0]
    assert len(names(Path("runs/torchrun"))) == 2 * 2 * 4


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def batch(command: str, *more: str, **environment: str) -> subprocess.CompletedProcess:
    """What sbatch would run on the first node."""
    executable(Path("bin/srun"), SRUN)
    executable(Path("bin/scontrol"), '#!/bin/bash\necho "$@" >> requeued\n')
    words = tiny(command)
    script = next(i for i, word in enumerate(words) if word.endswith("slurm.sbatch"))
    variables = dict(word.split("=", 1) for word in words[:script] if word[0] != "-" and "=" in word)
    env = {**os.environ, "PATH": f"{Path('bin').resolve()}:{os.environ['PATH']}", "DOP_COMMAND": PYTHON}
    env |= {"SLURM_JOB_ID": str(30000 + os.getpid() % 10000), **variables, **environment}
    return subprocess.run(["bash", *words[script:], *more], env=env, capture_output=True, text=True, timeout=280)


PYTHON = f"{sys.executable} -m dop_lightning"


@pytest.mark.slow
def test_slurm_on_two_nodes() -> None:
    (command,) = only("sbatch")
    done = batch(command)
    assert done.returncode == 0, done.stderr
    (run,) = Path("runs").glob("slurm-3*")
    assert len(names(run)) == 6
    assert not Path("requeued").exists()


ENDS = """#!/bin/bash
# Replaces srun of a job whose time is up.
exit 143
"""


@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("2", False)])
def test_job_at_its_time_limit_is_requeued(restarts: str, requeued: bool) -> None:
    executable(Path("bin/srun"), ENDS)
    executable(Path("bin/scontrol"), '#!/bin/bash\necho "$@" >> requeued\n')
    env = {**os.environ, "PATH": f"{Path('bin').resolve()}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    env |= {"SLURM_RESTART_COUNT": restarts, "DOP_MOST_RESTARTS": "2"}
    done = subprocess.run(["bash", "scripts/slurm.sbatch", "--config", "a.yaml"], env=env)
    assert done.returncode == 143
    assert Path("requeued").exists() == requeued
    assert not requeued or Path("requeued").read_text() == "requeue 12\n"


def test_array_job_uses_one_line_of_options_each() -> None:
    (command,) = only("DOP_OPTIONS")
    executable(Path("bin/srun"), '#!/bin/bash\nprintf "%s\\n" "$@" > words\n')
    Path("options.txt").write_text("--model.alpha 3\n--data.files 'my file.npy'\n")
    env = {**os.environ, "PATH": f"{Path('bin').resolve()}:{os.environ['PATH']}", "DOP_OPTIONS": "options.txt"}
    env |= {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "2"}
    words = shlex.split(command)
    subprocess.run(["bash", *words[words.index("scripts/slurm.sbatch") :]], env=env, check=True)
    expected = ["dop", "fit", "--config", "configs/matrix.yaml", "--data.files", "my file.npy"]
    expected += ["--trainer.default_root_dir", "runs/slurm-11-2"]
    assert Path("words").read_text().splitlines()[1:] == expected


def test_sweeps_and_tables(dop) -> None:
    plan, sweep, table, csv, latex, slurm = only("dop (sweep|table)")
    said = dop(*tiny(plan)[1:])
    assert (said.status, said.out.count("to do")) == (0, 4), said.out
    assert not Path("runs").exists()
    said = dop(*tiny(sweep.removesuffix(" --jobs 2"))[1:], "--cluster", "debug")
    assert said.status == 0, said.err
    assert "ratio" in dop(*tiny(table)[1:]).out
    assert "ratio" in dop(*tiny(latex)[1:]).out
    assert dop(*tiny(csv)[1:]).status == 0
    assert len(Path("all.csv").read_text().splitlines()) == 1 + 4  # means over both seeds
    said = dop(*shlex.split(slurm)[1:], "--dry-run")
    assert (said.status, said.out.count("to do")) == (0, 4), said.err
