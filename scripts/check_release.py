"""Check a release: build wheel and sdist of the last commit, inspect them, and test the installed wheel.

    python scripts/check_release.py --work build/release

For every available Python (or each `--python`), it creates an empty environment and installs the wheel with the
versions of constraints.txt. In a folder outside the checkout, it runs `dop --version`, `dop --help` (with its time),
`dop doctor`, a recovery of a JPEG and the engine from Python, and checks the types with mypy. It resolves every extra.
The environments are removed at the end.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = [f"python3.{minor}" for minor in range(11, 20)]
MAX_SECONDS = 0.5
"""Maximum time of `dop --help`."""

PLACES = {"data/": "dop_lightning/samples/", "configs/": "dop_lightning/configs/", "dop_lightning/": "dop_lightning/"}
"""Folders of the checkout, and their places in the wheel."""

RECOVER = """
import numpy as np
from PIL import Image
pixels = np.full((40, 56, 3), 128, np.uint8)
pixels[np.random.default_rng(0).random(pixels.shape) < 0.3] = 255
Image.fromarray(pixels).save("photo.jpg", quality=95)
"""

ENGINE = """
import torch
from dop_lightning import Method, Problem, ProblemBatch
from dop_lightning.model.signals import SymmetricFactor
state = Method(SymmetricFactor).begin(ProblemBatch([Problem("mine", torch.ones(8, 8))]), tau=1e-3)
assert state.advance(10) == []
"""

TYPED = "from dop_lightning.foundation.units import parse_bytes\nsize: int = parse_bytes('8G')\n"
MISTYPED = "from dop_lightning.foundation.units import parse_bytes\nsize: str = parse_bytes(3)\n"


class Failures:
    """Print one line per check, and count failures."""

    def __init__(self) -> None:
        self.count = 0

    def check(self, good: bool, what: str, otherwise: str = "") -> bool:
        """Record and print one check; return whether it passed."""
        self.count += not good
        print(f"  {'ok  ' if good else 'FAIL'} {what}{'' if good or not otherwise else f': {otherwise}'}", flush=True)
        return good


def call(command: Sequence[str | Path], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is captured in the result."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DOP_", "VIRTUAL_ENV"))}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env={**kept, **variables}, capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last nonempty line that a command printed."""
    return next((line for line in reversed((done.stdout + "\n" + done.stderr).splitlines()) if line.strip()), "")


def make_environment(python: str | Path, folder: Path) -> Path:
    """Create an empty environment, and return its Python."""
    if folder.exists():
        shutil.rmtree(folder)
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run pip quietly, with the user's configuration."""
    return call([python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *arguments], folder)


# --------------------------------------------------------------------------------------------------------------- build


def committed(folder: Path) -> list[str]:
    """Unpack the last commit into a folder, and return the names of its files."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", "HEAD"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
        return [member.name for member in tar.getmembers() if member.isfile()]


def build(python: Path, source: Path, out: Path, kind: str) -> Path:
    """Build a wheel or an sdist from a folder."""
    done = call([python, "-m", "hatchling", "build", "-t", kind, "-d", out], source)
    if done.returncode:
        raise SystemExit(f"{kind} cannot be built: {done.stderr}")
    return max(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def wheel_files(wheel: Path) -> dict[str, str]:
    """Return the files of a wheel with their hashes, without RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def expected_files(tracked: Sequence[str]) -> set[str]:
    """Return the paths in the wheel of all files of the checkout that belong in it."""
    return {
        place + name.removeprefix(prefix)
        for name in tracked
        for prefix, place in PLACES.items()
        if name.startswith(prefix)
    }


def check_archives(wheel: Path, sdist: Path, again: Path, tracked: Sequence[str], failures: Failures) -> None:
    """Check the files of wheel and sdist, and compare with a wheel that was built from the sdist."""
    files = wheel_files(wheel)
    inside = {name for name in files if ".dist-info/" not in name}
    wanted = expected_files(tracked)
    failures.check(not wanted - inside, f"{wheel.name} has all {len(wanted)} files", str(sorted(wanted - inside)[:5]))
    failures.check(not inside - wanted, "and no others", str(sorted(inside - wanted)[:5]))
    for name in ("dop_lightning/py.typed", "dop_lightning/configs/image.yaml", "dop_lightning/samples/camera.png"):
        failures.check(name in files, f"contains {name}")
    failures.check(any(name.endswith("/licenses/LICENSE") for name in files), "contains the licence")
    with tarfile.open(sdist) as tar:
        names = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()} - {"PKG-INFO"}
    missing = set(tracked) - names
    failures.check(not missing, f"{sdist.name} has all {len(tracked)} files of the commit", str(sorted(missing)[:5]))
    failures.check(not names - set(tracked), "and no others", str(sorted(names - set(tracked))[:5]))
    failures.check(wheel_files(again) == files, "builds the same wheel")


def check_metadata(python: Path, files: Sequence[Path], failures: Failures) -> None:
    """Check the metadata as a package index would."""
    if pip(python, "twine").returncode:
        print("  --   metadata not checked: twine cannot be installed")
        return
    done = call([python, "-m", "twine", "check", "--strict", *files], ROOT)
    failures.check(done.returncode == 0, "metadata and README are valid for an index", last_line(done))


# ------------------------------------------------------------------------------------------------------------- install


def pythons(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield version and path of each Python that can create environments, one per minor version."""
    places = (
        [*given]
        if given
        else [*NAMES, *map(str, sorted(Path.home().glob(".pyenv/versions/*/bin/python"), reverse=True))]
    )
    seen = set()
    for place in places:
        path = shutil.which(place)
        probe = "import sys, ssl, venv, ensurepip, json; print(json.dumps([*sys.version_info[:3]]))"
        done = None if path is None else call([path, "-c", probe], Path("/"))
        if path is None or done is None or done.returncode:
            if given:
                raise SystemExit(f"--python must be one with ssl, venv and ensurepip, got {place}")
            continue
        version = tuple(json.loads(done.stdout))
        if version >= (3, 11) and (version[:2] not in seen or given):
            seen.add(version[:2])
            yield ".".join(map(str, version)), path


def check_installed(python: Path, wheel: Path, folder: Path, version: str, failures: Failures) -> None:
    """Install a wheel into an empty environment, and test it in an empty folder."""
    begin = time.perf_counter()
    # Install PyTorch first and pinned, as `make` does: pip uses the CPU build of this version if one is offered.
    constraints = ["-c", str(ROOT / "constraints.txt")]
    for what in ("torch", str(wheel)):
        done = pip(python, *constraints, what, folder=folder)
        if not failures.check(done.returncode == 0, f"pip install {Path(what).name}", done.stderr.strip()[-500:]):
            return
    used = sum(path.stat().st_size for path in python.parents[1].rglob("*") if path.is_file() and not path.is_symlink())
    print(f"       in {time.perf_counter() - begin:.0f} s, {used / 2**30:.1f} GiB")
    dop = python.parent / "dop"
    done = call([dop, "--version"], folder)
    failures.check(done.stdout == f"dop_lightning {version}\n", "dop --version", last_line(done))
    done = call([python, "-m", "dop_lightning", "--version"], folder)
    failures.check(done.stdout == f"dop_lightning {version}\n", "python -m dop_lightning --version", last_line(done))
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        done = call([dop, "--help"], folder)
        seconds.append(time.perf_counter() - begin)
    good = done.stdout.startswith("usage: dop VERB") and min(seconds) < MAX_SECONDS
    failures.check(good, f"dop --help in {min(seconds):.2f} s, the best of 5", last_line(done))
    done = call([dop, "doctor"], folder)
    failures.check(done.returncode == 0, f"dop doctor: {last_line(done)}")
    for line in done.stdout.splitlines():
        if done.returncode or line.startswith("  problem"):
            print(f"       {line}")
    call([python, "-c", RECOVER], folder)
    done = call([dop, "recover", "photo.jpg", "--out", "restored", "--iterations", "20", "--width", "4"], folder)
    restored = (
        folder / "restored" / "photo" / "recovered.png"
    ).is_file()  # PNG, because saving as JPEG again would lose information
    failures.check(done.returncode == 0 and restored, "dop recover photo.jpg", last_line(done))
    done = call([dop, "recover", "camera", "--out", "sample", "--iterations", "2", "--width", "4"], folder)
    failures.check(done.returncode == 0, "dop recover of a bundled sample", last_line(done))
    done = call([python, "-c", ENGINE], folder)
    failures.check(done.returncode == 0, "the engine from Python", last_line(done))
    check_types(python, folder, failures)


def lowest(dependencies: Sequence[str]) -> list[str]:
    """Replace the requirements of a package by the lowest versions that it allows.

    >>> lowest(["torch>=2.6", "jsonargparse[signatures]>=4.44,<5"])
    ['torch==2.6', 'jsonargparse[signatures]==4.44']
    """
    return [re.sub(r">=([\w.]+).*", r"==\1", dependency) for dependency in dependencies]


def check_lowest(python: Path, wheel: Path, dependencies: Sequence[str], folder: Path, failures: Failures) -> None:
    """Check that the package works with the lowest versions of its requirements."""
    done = pip(python, "--prefer-binary", *lowest(dependencies), folder=folder)
    done = pip(python, "--no-deps", wheel, folder=folder) if done.returncode == 0 else done
    if not failures.check(done.returncode == 0, "pip install of the lowest versions", done.stderr.strip()[-500:]):
        return
    dop = python.parent / "dop"
    done = call([dop, "doctor"], folder)
    failures.check(done.returncode == 0, f"dop doctor: {last_line(done)}")
    done = call([dop, "fit", "--config", ROOT / "configs/matrix.yaml", "--trainer.max_steps", "20"], folder)
    failures.check(done.returncode == 0, "dop fit", last_line(done))
    done = call([dop, "recover", "camera", "--out", "sample", "--iterations", "2", "--width", "4"], folder)
    failures.check(done.returncode == 0, "dop recover", last_line(done))


def check_types(python: Path, folder: Path, failures: Failures) -> None:
    """Check that mypy sees the types of the installed package, and reports wrong ones."""
    if pip(python, "-c", ROOT / "constraints.txt", "mypy").returncode:
        print("  --   types not checked: mypy cannot be installed")
        return
    for name, text, errors in (("typed.py", TYPED, 0), ("mistyped.py", MISTYPED, 2)):
        (folder / name).write_text(text, encoding="utf-8")
        done = call([python, "-m", "mypy", "--follow-imports=silent", name], folder)
        found = len(re.findall(rf"^{name}:\d+: error: ", done.stdout, re.MULTILINE))
        failures.check(found == errors, f"mypy finds {errors} errors in {name}", done.stdout.strip())


def check_extras(python: Path, wheel: Path, extras: Mapping[str, object], folder: Path, failures: Failures) -> None:
    """Check that pip finds a set of versions for every extra."""
    for extra in extras:
        what = f"dop_lightning[{extra}] @ {wheel.as_uri()}"
        done = pip(python, "--dry-run", "-c", ROOT / "constraints.txt", what, folder=folder)
        failures.check(done.returncode == 0, f"pip finds all of dop_lightning[{extra}]", done.stderr.strip()[-300:])


def main() -> int:
    """Build and check a release."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/release"),
        help="working folder; its contents are deleted; default: %(default)s",
    )
    parser.add_argument(
        "--python", action="append", default=[], help="Python to test instead of all available ones; repeatable"
    )
    parser.add_argument("--no-install", action="store_true", help="only build and inspect the archives")
    parser.add_argument(
        "--lowest", action="store_true", help="also test the lowest versions of all requirements (downloads gigabytes)"
    )
    options = parser.parse_args()
    work = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    failures = Failures()

    print("Build", flush=True)
    tool = make_environment(sys.executable, work / "tool")
    done = pip(tool, "-c", ROOT / "constraints.txt", "hatchling")
    if done.returncode:
        raise SystemExit(f"hatchling cannot be installed: {done.stderr}")
    source = work / "source"
    tracked = committed(source)
    wheel, sdist = (build(tool, source, work / "dist", kind) for kind in ("wheel", "sdist"))
    with tarfile.open(sdist) as tar:
        tar.extractall(work / "unpacked", filter="data")
    again = build(tool, next((work / "unpacked").iterdir()), work / "again", "wheel")
    check_archives(wheel, sdist, again, tracked, failures)
    check_metadata(tool, [wheel, sdist], failures)

    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for place, (version, python) in enumerate([] if options.no_install else pythons(options.python)):
        print(f"Python {version}", flush=True)
        folder, environment = work / f"outside-{version}", work / f"environment-{version}"
        folder.mkdir()
        installed = make_environment(python, environment)
        check_installed(installed, wheel, folder, project["version"], failures)
        if place == 0:
            check_extras(installed, wheel, project["optional-dependencies"], folder, failures)
        if place == 0 and options.lowest:
            print(f"Python {version}, lowest versions", flush=True)
            installed = make_environment(python, environment)
            (folder / "lowest").mkdir()
            check_lowest(installed, wheel, project["dependencies"], folder / "lowest", failures)
        shutil.rmtree(environment)
    print(f"{failures.count} failed" if failures.count else "All checks passed.")
    return 1 if failures.count else 0


if __name__ == "__main__":
    sys.exit(main())
