"""Test scales, offsets and extreme values of images and matrices, and print the results as a Markdown table.

    python scripts/check_extreme_values.py
    python scripts/check_extreme_values.py --case matrices

Each input is derived from an image of 24×24 pixels or a matrix of 40×30 entries, both with outliers, by a factor, an
offset or a few changed values. The factor or offset is undone in the result, which is compared with the result for the
plain input: "exact", or the largest difference relative to the largest value. Offsets and denormal numbers are compared
with the plain input after the same rounding. Networks amplify rounding: "rounding" is a difference of at most twice
that of three inputs whose last digits were changed at random. "changed" is a finite result for different data, which
should differ. Refusals and warnings are listed below the table, each kind once. The exit status is 1 if a result
differs by more or is not finite, or after a traceback.
"""

import argparse
import contextlib
import io
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import torch

from dop_lightning import RobustPCA, recover_image
from dop_lightning.cli.main import main as dop

WIDTH, ITERATIONS = 4, 6
"""Width and iterations of the networks."""

ROUNDING = {"float64": 1e-13, "float32": 1e-5}
"""Allowed difference of a result without a network, from rounding of the input and the steps."""


class Failure(Exception):
    """A call was refused; the message is its last line."""


class Input(NamedTuple):
    """An input, and how its result is compared.

    Attributes:
        label: label of the row.
        array: values.
        factor: factor applied to the plain values.
        offset: offset added to the plain values.
        plain: plain values with the same rounding; ``None`` for those of the table.
        allowed: allowed difference relative to the largest value; ``None`` for rounding, and infinite if the data
            differ.
    """

    label: str
    array: np.ndarray
    factor: float = 1.0
    offset: float = 0.0
    plain: np.ndarray | None = None
    allowed: float | None = None


Call = Callable[[np.ndarray], tuple[np.ndarray, list[str]]]


def plain_image() -> np.ndarray:
    """Return a smooth image with a tenth of its values replaced at random."""
    draws = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 1, 24), np.linspace(0, 1, 24))
    image = 2 + np.sin(3 * x) + np.cos(4 * y)
    return np.where(draws.random(image.shape) < 0.1, draws.uniform(0, 4, image.shape), image)


def plain_matrix() -> np.ndarray:
    """Return a matrix of rank 2 with outliers."""
    draws = np.random.default_rng(0)
    matrix = draws.normal(size=(40, 2)) @ draws.normal(size=(2, 30))
    return matrix + (draws.random(matrix.shape) < 0.08) * draws.uniform(-5, 5, matrix.shape)


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed[3, 4] = value
    return changed


def with_gap(array: np.ndarray, index: tuple[int | slice, ...]) -> np.ndarray:
    changed = array.copy()
    changed[index] = np.nan
    return changed


def scaled(array: np.ndarray, factor: float) -> Input:
    exponent = np.log2(factor)
    label = f"× 2^{exponent:.0f}" if exponent == round(exponent) else f"× {factor:g}"
    result = (array * array.dtype.type(factor)).astype(array.dtype)
    if array.dtype.kind != "f" or np.abs(result).max() >= np.finfo(array.dtype).tiny:
        return Input(label, result, factor)
    # denormal numbers have fewer digits
    return Input(label, result, factor, plain=(result.astype(np.longdouble) / factor).astype(array.dtype))


def scales(array: np.ndarray) -> Iterator[Input]:
    """Yield inputs with factors, down to denormal numbers and up to the end of the number format."""
    small = [1e-300, 1e-310] if array.dtype == np.float64 else [1e-37, 1e-40]
    large = [1e300] if array.dtype == np.float64 else [1e37]
    for factor in (2.0**-100, 2.0**100, 1e-30, 1e-6, 1e6, 1e30, *small, *large):
        yield scaled(array, factor)


def offset(array: np.ndarray, value: float) -> Input:
    moved = (array.astype(np.float64) + value).astype(array.dtype)
    return Input(f"+ {value:g}", moved, 1.0, value, (moved.astype(np.float64) - value).astype(array.dtype))


def extremes(array: np.ndarray) -> Iterator[Input]:
    """Yield inputs with outliers, missing entries, constants and thin shapes."""
    kind, large = array.dtype, 1e300 if array.dtype == np.float64 else 1e37
    for value in (1e6, 1e30, large):
        yield Input(f"one entry {value:g}", with_value(array, value), allowed=np.inf)
    yield Input("one entry inf", with_value(array, np.inf), allowed=np.inf)
    yield Input("a row of NaN", with_gap(array, (5,)), allowed=np.inf)
    yield Input("a column of NaN", with_gap(array, (slice(None), 7)), allowed=np.inf)
    yield Input("only NaN", np.full_like(array, np.nan), allowed=np.inf)
    for value in (0.0, 1.0, 1e-30, 1e30):
        constant = np.full((20, 16), value, kind)
        yield Input(f"constant {value:g}", constant, plain=constant, allowed=1e-5)
    for name, part in (("1 × n", array[:1]), ("n × 1", array[:, :1]), ("1 × 1", array[:1, :1]), ("0 × n", array[:0])):
        yield Input(name, part, allowed=np.inf)


def image_inputs() -> Iterator[Input]:
    """Yield images, the plain one of each number format first."""
    for kind in (np.float64, np.float32):
        array = plain_image().astype(kind)
        yield Input("plain", array)
        yield from scales(array)
        for value in (1e3, -1e6, 1e9):
            yield offset(array, value)
        if kind == np.float32:
            yield from extremes(array)
        else:
            yield Input("one entry 1e+300", with_value(array, 1e300), allowed=np.inf)
    array = plain_image().astype(np.float16)
    yield Input("plain", array)
    for factor in (2.0**-12, 2.0**12):
        yield scaled(array, factor)
    array = (1000 * plain_image()).astype(np.int64)
    yield Input("plain", array)
    yield Input("× 2^40", array * 2**40, 2.0**40, allowed=2e-4)  # the plain result is rounded to integers
    for power in (24, 40, 53, 62):
        yield Input(f"+ 2^{power}", array + 2**power, 1.0, 2.0**power)


def matrix_inputs() -> Iterator[Input]:
    """Yield matrices, the plain one of each number format first."""
    for kind in (np.float64, np.float32):
        array = plain_matrix().astype(kind)
        yield Input("plain", array)
        yield from scales(array)
        yield from extremes(array)
    array = (1000 * plain_matrix()).astype(np.int64)
    yield Input("plain", array)
    for power in (20, 40):  # read as float64
        yield Input(f"× 2^{power}", array * 2**power, 2.0**power, plain=array.astype(np.float64))


def recovered(preset: str, suffix: str = "") -> Call:
    """Return a call of `recover_image` with an array or a file."""
    options = {} if preset == "instant" else {"width": WIDTH, "iterations": ITERATIONS}

    def call(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
        with recorded_warnings() as messages, tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/image{suffix}"
            if suffix:
                write(file, array)
            try:
                result = recover_image(
                    file if suffix else array, preset=preset, device="cpu", progress=False, **options
                )  # type: ignore[arg-type]
            except ValueError as error:
                raise Failure(str(error).replace(f"{folder}/", "")) from None
        return np.asarray(result.image), messages

    return call


def write(file: str, array: np.ndarray) -> None:
    """Write an image as .tif, .fits or .npy."""
    if file.endswith(".tif"):
        tifffile.imwrite(file, array)
    elif file.endswith(".fits"):
        if array.dtype == np.float16:
            raise Failure("FITS does not support this type")
        bits = 8 * array.dtype.itemsize * (-1 if array.dtype.kind == "f" else 1)
        values = ["SIMPLE", "T"], ["BITPIX", bits], ["NAXIS", 2], ["NAXIS1", array.shape[1]], ["NAXIS2", array.shape[0]]
        cards = "".join(f"{name:<8}= {value!s:>20}".ljust(80) for name, value in values) + "END"
        content = array.astype(array.dtype.newbyteorder(">")).tobytes()
        Path(file).write_bytes(cards.ljust(2880).encode() + content.ljust(-(-len(content) // 2880) * 2880, b"\0"))
    else:
        np.save(file, array)


def recovered_file(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Run `dop recover` on a .npy file."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "image.npy", array)
        run = ["recover", f"{folder}/image.npy", "--out", f"{folder}/out", "--preset", "instant", "--device", "cpu"]
        messages = command(run, folder)
        return np.load(next(Path(folder, "out").rglob("image/recovered.npy"))), messages


def separated(method: str, suffix: str = ".npy", memory: str = "1G") -> Call:
    """Return a call of `dop separate`."""

    def call(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"a{suffix}"
            if suffix == ".npy":
                np.save(file, array)
            else:
                rows = (",".join("" if value != value else repr(value) for value in row) for row in array.tolist())
                file.write_text("".join(f"{row}\n" for row in rows))
            options = ["--method", method, "--max-memory", memory, "--device", "cpu"]
            messages = command(["separate", str(file), "--out", f"{folder}/out", *options], folder)
            names = [path for path in Path(folder, "out").rglob("*.npy") if path.stem in ("recovered", "low_rank")]
            return np.load(names[0]), messages

    return call


def in_pieces(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Run `dop separate` on 16 adjacent copies, which are enough for a certificate, read in pieces."""
    tiled = np.tile(array, (4, 4))
    result, messages = separated("projections", memory=f"{max(1, tiled.nbytes // 1024)}K" if tiled.size else "1G")(
        tiled
    )
    return result[: len(array), : array.shape[1]], messages


def fitted(method: str) -> Call:
    """Return a call of `RobustPCA`."""

    def call(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
        with recorded_warnings() as messages:
            try:
                model = RobustPCA(method=method, center=False).fit(array)  # type: ignore[arg-type]
            except ValueError as error:
                raise Failure(str(error)) from None
        return model.low_rank_, messages

    return call


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Collect warnings."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    messages += [str(warning.message) for warning in caught]


def command(arguments: list[str], folder: str) -> list[str]:
    """Run `dop` in this process, and return its warnings."""
    out, err = io.StringIO(), io.StringIO()
    with recorded_warnings() as messages, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = dop(arguments)
    text = err.getvalue().replace(f"{folder}/", "")
    if status:
        raise Failure(text.strip().splitlines()[-1].partition("error: ")[2])
    lines = (*out.getvalue().replace(f"{folder}/", "").splitlines(), *text.splitlines())
    return [*messages, *(line for line in lines if line.startswith("Warning:"))]


def difference(result: np.ndarray, given: Input, expected: np.ndarray) -> float:
    """Return the largest difference relative to the largest value."""
    back = (result.astype(np.longdouble) - np.longdouble(given.offset)) / np.longdouble(given.factor)
    largest = np.abs(expected.astype(np.longdouble)).max()
    return float(np.abs(back - expected).max() / (largest or 1))


class Column:
    """Results of a call for all inputs, compared with the plain one of the same number format.

    Args:
        call: function to test.
        amplifies: whether a network is fitted.
    """

    def __init__(self, call: Call, amplifies: bool) -> None:
        self.call, self.amplifies = call, amplifies
        self.allowed = 0.0
        self.expected = np.zeros(0)
        self.wrong = 0

    def cell(self, given: Input, notes: "Notes") -> str:
        """Return the text of a cell."""
        try:
            if given.label == "plain":
                self._begin(given.array)
                return "–"
            result, messages = self.call(given.array)
            expected = self.expected if given.allowed == np.inf else self._expected(given)
        except Failure as failure:
            return f"refused {notes.of(str(failure))}"
        noted = "".join(f", warning {notes.of(line.removeprefix('Warning: '))}" for line in dict.fromkeys(messages))
        if not np.isfinite(result).all():
            self.wrong += 1
            return f"NOT FINITE{noted}"
        if given.allowed == np.inf:
            return f"changed{noted}"
        error = difference(result, given, expected)
        allowed = self.allowed if given.allowed is None else given.allowed
        if given.offset and given.array.dtype.kind == "f":  # the result has the resolution of the input
            allowed = max(allowed, float(np.spacing(np.abs(given.array).max()) / np.abs(self.expected).max()))
        if error > allowed:
            self.wrong += 1
            return f"DIFFERS by {error:.1g}{noted}"
        if error == 0:
            return f"exact{noted}"
        return ("rounding" if error > ROUNDING["float32"] else f"{error:.0e}") + noted

    def _expected(self, given: Input) -> np.ndarray:
        if given.plain is None:
            return self.expected
        return given.array if given.label.startswith("constant") else self.call(given.plain)[0]

    def _begin(self, plain: np.ndarray) -> None:
        """Store the result of the plain input, and its sensitivity to the last digits of the entries."""
        self.expected = self.call(plain)[0]
        self.allowed = ROUNDING.get(plain.dtype.name, 0.0)
        if self.amplifies:
            kind = plain.dtype if plain.dtype.kind == "f" else np.dtype(np.float64)
            draws = np.random.default_rng(1)
            step = max(np.finfo(kind).eps, np.finfo(np.float32).eps)
            for _ in range(3):
                changed = (plain * (1 + step * draws.integers(-1, 2, plain.shape))).astype(kind)
                error = difference(self.call(changed)[0], Input("", changed), self.expected)
                self.allowed = max(self.allowed, 2 * error)


class Notes:
    """Printed lines, each kind once."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    def of(self, line: str) -> str:
        """Return the number of a line; lines that differ only in numbers share it."""
        line = re.sub(r"^(image|a)(\.\w+)?: ", "", line)
        kind = re.sub(r"[-+\d.e]*\d", "0", line)
        self._lines.setdefault(kind, line)
        return f"[{list(self._lines).index(kind) + 1}]"

    def __str__(self) -> str:
        return "\n".join(f"{k}. {line}" for k, line in enumerate(self._lines.values(), 1))


IMAGES: dict[str, Column] = {
    "`recover_image`, instant": Column(recovered("instant"), False),
    "quick": Column(recovered("quick"), True),
    "default": Column(recovered("default"), True),
    ".tif, instant": Column(recovered("instant", ".tif"), False),
    ".fits, instant": Column(recovered("instant", ".fits"), False),
    "`dop recover`, .npy, instant": Column(recovered_file, False),
}

MATRICES: dict[str, Column] = {
    "`dop separate`, auto": Column(separated("auto"), False),
    "dop": Column(separated("dop"), False),
    "projections": Column(separated("projections"), False),
    "convex": Column(separated("convex"), False),
    "projections in pieces": Column(in_pieces, False),
    "auto, .csv": Column(separated("auto", ".csv"), False),
    "`RobustPCA`": Column(fitted("auto"), False),
}


def table(inputs: Iterator[Input], columns: dict[str, Column]) -> int:
    """Print a table, and return the number of wrong cells."""
    notes = Notes()
    print(f"| input | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for given in inputs:
        cells = [column.cell(given, notes) for column in columns.values()]
        print(f"| {given.label}, {given.array.dtype} | {' | '.join(cells)} |", flush=True)
    print(f"\n{notes}\n")
    return sum(column.wrong for column in columns.values())


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=["images", "matrices"], help="default: both")
    case = parser.parse_args().case
    torch.set_num_threads(1)
    wrong = 0
    if case != "matrices":
        wrong += table(image_inputs(), IMAGES)
    if case != "images":
        wrong += table(matrix_inputs(), MATRICES)
    if wrong:
        print(f"{wrong} results are wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
