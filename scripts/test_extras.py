"""Install each extra of pyproject.toml into an environment without the others, and test it there.

    make test-extras                          # all extras: about 3 GB and half an hour
    python scripts/test_extras.py hdf5 ray    # selected extras

The environment `.venv-extras/base` contains the package without extras. Each extra gets a separate environment that
includes the packages of the base, and installs `dop_lightning[NAME]` from a wheel of this checkout. An extra passes if

- the installation succeeds, and `dop doctor` finds all of its packages in supported versions;
- its smallest task (`EXTRAS`) fails without the extra, with one line that names the package to install;
- the same task succeeds with the extra, and so do its tests, if it has tests that `make test` skips.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-extras"
PIP = [
    "-m",
    "pip",
    "install",
    "-qq",
    "--no-compile",
    "--disable-pip-version-check",
    "-c",
    str(ROOT / "constraints.txt"),
]
TORCH = os.environ.get("TORCH", "torch").split()
LONGEST = 1800.0
"""Maximum seconds of a step."""


@dataclass(frozen=True)
class Extra:
    """Tests of an extra.

    Attributes:
        task: smallest task that needs the extra: a command that begins with ``dop``, or Python code.
        before: Python code, run with the extra, that writes the files of the task.
        has_hint: whether the task prints the extra to install if it is missing. Otherwise the user's code imports a
            package of the extra first, and only ``dop doctor`` can print it.
        tests: files and folders of tests to run with the extra, and options of pytest.
        packages: additional packages for these tests.
    """

    task: str
    before: str = ""
    has_hint: bool = True
    tests: Sequence[str] = field(default=())
    packages: Sequence[str] = field(default=())


WRITE = "import numpy as np; D = np.outer(np.arange(20.0), np.ones(20)); D[3, 4] = 90.0; "

EXTRAS = {
    "app": Extra(
        task="import os, signal, threading\n"
        "from dop_lightning.cli.app.command import run\n"
        "threading.Timer(10, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    run('app', ['--no-browser'])\nexcept KeyboardInterrupt:\n    pass\nexcept ImportError:\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    raise",
        tests=["-m", "not slow", "tests/cli/app"],
        packages=["httpx"],
    ),
    "arrays": Extra(
        task="import numpy as np, xarray, dask.array, zarr, dop_lightning as dop\n"
        "image = np.full((16, 16), 0.5)\n"
        "recover = lambda array: dop.recover_image(array, preset='instant')\n"
        "assert isinstance(recover(xarray.DataArray(image, dims=('y', 'x'))).image, xarray.DataArray)\n"
        "assert recover(dask.array.from_array(image)).image.compute().shape == (16, 16)\n"
        "assert recover(zarr.array(image)).image.shape == (16, 16)",
        has_hint=False,
    ),
    "astro": Extra(
        before="import numpy as np; from astropy.io import fits; "
        "fits.writeto('frame.fits', np.full((16, 16), 5, dtype=np.float32))",
        task="dop recover frame.fits --preset instant --out out",
    ),
    "cluster": Extra(
        before="open('base.yaml', 'w').write('data: {class_path: MatrixDataModule}')",
        task="dop sweep --config base.yaml --axis model.alpha=2,4 --out out --cluster slurm",
        tests=["tests/runs/sweeps/test_slurm.py"],
    ),
    "completion": Extra(task="dop completion bash"),
    "dev": Extra(task="import mypy, pylint, pytest, ruff", has_hint=False, tests=["tests/foundation/test_names.py"]),
    "docs": Extra(
        task="from pathlib import Path; from sphinx.cmd.build import main; Path('source').mkdir()\n"
        "extensions = ['myst_parser', 'sphinx_copybutton', 'sphinx.ext.autodoc']\n"
        "Path('source/conf.py').write_text(f'extensions = {extensions}; html_theme = \\'furo\\'')\n"
        "Path('source/index.md').write_text('# T\\n```{eval-rst}\\n.. autoclass:: dop_lightning.Recovery\\n```')\n"
        "assert main(['-q', '-W', '-b', 'html', 'source', 'site']) == 0",
        has_hint=False,
    ),
    "estimator": Extra(
        task="import numpy as np; from dop_lightning import RobustPCA; "
        "D = np.random.default_rng(0).normal(size=(30, 2)) @ np.ones((2, 20)); RobustPCA().fit(D)"
    ),
    "figures": Extra(
        task="import os; os.environ['MPLBACKEND'] = 'agg'; import numpy as np, dop_lightning as dop; "
        "dop.recover_image(np.full((16, 16), 0.5), preset='instant').plot()"
    ),
    "hdf5": Extra(
        before=WRITE + "import h5py; h5py.File('table.h5', 'w')['D'] = D", task="dop separate table.h5 --out out"
    ),
    "matlab": Extra(
        before=WRITE + "from scipy.io import savemat; savemat('table.mat', {'D': D})",
        task="dop separate table.mat --out out",
    ),
    # the tests of the widget are skipped without a display, for example that of xvfb-run
    "napari": Extra(
        task="from dop_lightning.integrations.napari.widget import RestoreWidget", tests=["tests/integrations/napari"]
    ),
    "notebook": Extra(
        task="import ipywidgets, dop_lightning.images.live_widget",
        has_hint=False,
        tests=["tests/integrations/notebook"],
        packages=["nbclient", "ipykernel", "matplotlib", "scikit-learn"],
    ),
    "parquet": Extra(
        before=WRITE + "import pyarrow as pa; from pyarrow import parquet; "
        "parquet.write_table(pa.table({str(j): D[:, j] for j in range(20)}), 'table.parquet')",
        task="dop separate table.parquet --out out",
    ),
    "physics": Extra(
        task="from dop_lightning.model.operators import Physics; Physics('deepinv.physics.Denoising').make()",
        tests=["tests/integrations/deepinv"],
    ),
    "ray": Extra(
        before="open('base.yaml', 'w').write('data: {class_path: MatrixDataModule, init_args: {n: 12, rank: 1}}')",
        task="dop sweep --config base.yaml --axis model.alpha=2,4 --trainer.max_steps 10 --out out --cluster ray",
        tests=["tests/integrations/ray"],
        packages=["kubernetes"],
    ),
    "rivals": Extra(
        task="import numpy as np; from dop_lightning.engine.rivals import Biharmonic, FrequencySelective; "
        "image = np.full((1, 16, 16), 0.5); missing = np.zeros((1, 16, 16), dtype=bool); missing[0, 3, 4] = True; "
        "assert all(filler().fill(image, missing).shape == image.shape for filler in (Biharmonic, FrequencySelective))"
    ),
    "theory": Extra(
        task="import torch; from dop_lightning.model.operators import Identity; "
        "from dop_lightning.paper.theory import gradient_flow; "
        "from dop_lightning.problems.problem import Problem, ProblemBatch; "
        "y = torch.eye(4, dtype=torch.float64)[None]; "
        "problems = ProblemBatch([Problem('eye', y[0])]); ones = torch.full_like(y, 1e-2); "
        "gradient_flow(Identity(problems), y, ones, ones, ones, 1.0, torch.tensor([0.0, 1.0]))"
    ),
    "triton": Extra(
        task="import triton", has_hint=False, tests=["-m", "triton", "tests/model/signals/unet/triton_kernels"]
    ),
    "tune": Extra(
        task="import optuna; from dop_lightning.lightning.callbacks import OptunaPruning; "
        "OptunaPruning(optuna.create_study().ask(), monitor='psnr')",
        has_hint=False,
    ),
    "video": Extra(
        before="import av, numpy as np\n"
        "with av.open('scene.mp4', 'w') as file:\n"
        "    stream = file.add_stream('mpeg4', rate=5, width=32, height=32)\n"
        "    for t in range(8):\n"
        "        picture = np.full((32, 32, 3), 90, np.uint8); picture[t, 4:8] = 250\n"
        "        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))\n"
        "    file.mux(stream.encode())",
        task="dop separate scene.mp4 --out out",
    ),
    "zarr": Extra(
        before=WRITE + "import zarr; zarr.create_array('table.zarr', data=D)", task="dop separate table.zarr --out out"
    ),
}
"""Tests of each extra; `tests/scripts/test_test_extras.py` checks that all extras of pyproject.toml are included."""


class StepError(RuntimeError):
    """A step failed; the message contains the reason."""


# --------------------------------------------------------------------------------------------------------- environments


def names() -> list[str]:
    """Return the extras of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return list(tomllib.load(file)["project"]["optional-dependencies"])


def python(environment: Path) -> Path:
    """Return the interpreter of an environment."""
    return environment / "bin" / "python"


def call(command: Sequence[str | Path], what: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed.

    Raises:
        StepError: it failed; the message contains its last lines of output.
    """
    done = run(command, **options)
    if done.returncode != 0:
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-12:]
        raise StepError("\n    ".join([f"{what} failed with status {done.returncode}", *last]))
    return done


def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=LONGEST, check=False, **options
    )  # type: ignore[call-overload]


def make_base() -> tuple[Path, Path]:
    """Create the environment without extras, unless it exists for the same pins and metadata, and build a new wheel.

    Returns:
        The environment, and a wheel of this checkout.
    """
    base, wheels = FOLDER / "base", FOLDER / "wheels"
    stamp, wanted = base / "made-for", "".join((ROOT / n).read_text() for n in ("constraints.txt", "pyproject.toml"))
    if not stamp.exists() or stamp.read_text() != wanted:
        call([sys.executable, "-m", "venv", "--clear", base], "creating an environment")
        call([python(base), *PIP, *TORCH], "installing PyTorch")
        call([python(base), *PIP, "hatchling"], "installing hatchling")
    shutil.rmtree(wheels, ignore_errors=True)
    build = [python(base), "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT]
    call(build, "building the wheel")
    (wheel,) = wheels.glob("*.whl")
    call([python(base), *PIP, "--force-reinstall", "--no-deps", wheel], "installing the package")
    call([python(base), *PIP, wheel], "installing the package")
    stamp.write_text(wanted)
    return base, wheel


def make_extra(name: str, base: Path, wheel: Path) -> Path:
    """Create an environment with one extra on top of the base."""
    environment = FOLDER / name
    call([sys.executable, "-m", "venv", "--clear", environment], "creating an environment")
    (packages,) = environment.glob("lib/python*/site-packages")
    (below,) = base.glob("lib/python*/site-packages")
    (packages / "below.pth").write_text(f"{below}\n", encoding="utf-8")
    if name == "physics":  # an index may only offer torchvision for CUDA, which does not load with PyTorch for the CPU
        text = f"import sys; sys.path.append({str(ROOT / 'scripts')!r}); "
        text += "import torchvision_for_cpu; torchvision_for_cpu.make_importable()\n"
        (packages / "torchvision_for_cpu.pth").write_text(text, encoding="utf-8")
    call([python(environment), *PIP, f"dop_lightning[{name}] @ {wheel.as_uri()}"], "installing")
    return environment


# --------------------------------------------------------------------------------------------------------------- trying


def attempt(environment: Path, task: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command ``dop …``, or Python code, with an environment and in a folder."""
    words = ["-m", "dop_lightning", *task.split()[1:]] if task.startswith("dop ") else ["-c", task]
    return run([python(environment), *words], cwd=folder)


def check_refusal(name: str, extra: Extra, base: Path, folder: Path) -> None:
    """Check the error message without an extra.

    Raises:
        StepError: the task succeeds, or its message is wrong.
    """
    done = attempt(base, extra.task, folder)
    lines = done.stderr.strip().splitlines()
    hint = re.compile(rf"""pip install (["'])dop_lightning\[{name}\]\1""")
    if done.returncode == 0:
        raise StepError("the task succeeds without the extra")
    if not extra.has_hint:
        if "ModuleNotFoundError" not in lines[-1]:
            raise StepError(f"without the extra, a module must be missing, got: {lines[-1]}")
    elif not lines or not hint.search(lines[-1]):
        raise StepError(f"the last line without the extra must match {hint.pattern}, got: {lines[-1:]}")
    elif extra.task.startswith("dop ") and len(lines) > 1:
        raise StepError("without the extra, one line must be printed, got\n    " + "\n    ".join(lines))


def check_packages(name: str, base: Path, environment: Path) -> str:
    """Check the output of ``dop doctor`` with and without an extra, and return the versions that it finds."""
    code = (
        "from dop_lightning.cli.doctor.packages import check_extras\n"
        f"for found in check_extras():\n    if found.name == {name!r}: print(found.state, found.text)"
    )
    without = call([python(base), "-c", code], "dop doctor without the extra").stdout
    if f'pip install "dop_lightning[{name}]"' not in without:
        raise StepError(f"dop doctor must print how to install the extra, got: {without.strip()}")
    found = call([python(environment), "-c", code], "dop doctor").stdout.strip()
    if not found.startswith("ok "):
        raise StepError(f"dop doctor finds: {found}")
    return found.rpartition(": ")[2].removeprefix("ok ")


def check_tests(extra: Extra, environment: Path) -> str:
    """Run the tests of an extra, and return the numbers of passed and skipped tests."""
    if not extra.tests:
        return ""
    call([python(environment), *PIP, "pytest", "pytest-timeout", "hypothesis", *extra.packages], "installing pytest")
    command = [python(environment), "-m", "pytest", "-p", "no:cacheprovider", *extra.tests]
    done = call(command, "pytest", cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return done.stdout.strip().splitlines()[-1].partition(" in ")[0]


def check(name: str, base: Path, wheel: Path) -> str:
    """Test one extra.

    Returns:
        A summary: seconds of the installation, versions, tests.

    Raises:
        StepError: a step failed.
    """
    extra, begun = EXTRAS[name], time.monotonic()
    environment = make_extra(name, base, wheel)
    seconds = time.monotonic() - begun
    versions = check_packages(name, base, environment)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if extra.before:
            call([python(environment), "-c", extra.before], "writing the files of the task", cwd=folder)
        check_refusal(name, extra, base, folder)
        done = attempt(environment, extra.task, folder)
        if done.returncode != 0 and not (name == "cluster" and "needs sbatch" in done.stderr):
            last = done.stderr.strip().splitlines()[-8:]
            raise StepError("\n    ".join([f"the task failed with status {done.returncode}", *last]))
    return f"installed in {seconds:.0f} s; {'; '.join(filter(None, [versions, check_tests(extra, environment)]))}"


def main(arguments: Sequence[str] | None = None, check: Callable[[str, Path, Path], str] = check) -> int:
    """Test extras.

    Returns:
        1 if one failed, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="extras to test; default: all")
    chosen = parser.parse_args(arguments).names or names()
    if unknown := [name for name in chosen if name not in names()]:
        parser.error(f"NAME must be an extra of pyproject.toml ({', '.join(names())}), got {unknown[0]!r}")
    base, wheel = make_base()
    failed = 0
    for name in chosen:
        try:
            line = f"passed  {check(name, base, wheel)}"
        except (StepError, subprocess.TimeoutExpired) as error:
            line, failed = f"FAILED  {error}", failed + 1
        print(f"{name:<12}{line}", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} extras passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
