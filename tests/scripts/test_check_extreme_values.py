"""Some cells of the tables of ``scripts/check_extreme_values.py``."""

from types import ModuleType

import numpy as np

SCRIPT = "check_extreme_values"


def test_image_is_invariant_to_factors(script: ModuleType) -> None:
    image = script.plain_image().astype(np.float32)
    column, notes = script.Column(script.recovered("instant"), False), script.Notes()
    inputs = [script.Input("plain", image), *(script.scaled(image, factor) for factor in (2.0**-100, 1e30))]
    cells = [column.cell(given, notes).partition(" ")[0] for given in inputs]
    assert cells[:2] == ["–", "exact"]
    assert float(cells[2]) < 1e-6  # rounding of the input
    assert column.wrong == 0


def test_matrix_is_invariant_to_factors(script: ModuleType) -> None:
    matrix = script.plain_matrix()
    column, notes = script.Column(script.fitted("projections"), False), script.Notes()
    inputs = [script.Input("plain", matrix), *(script.scaled(matrix, factor) for factor in (2.0**100, 1e-30))]
    cells = [column.cell(given, notes) for given in inputs]
    assert cells[:2] == ["–", "exact, warning [1]"]
    assert cells[2].partition(",")[0] in ("exact", "1e-16", "2e-16")
    assert str(notes).startswith("1. the result of the projections is not confirmed")


def test_a_wrong_result_is_counted(script: ModuleType) -> None:
    column, notes = script.Column(lambda array: (np.minimum(array, 1.0), []), False), script.Notes()
    column.cell(script.Input("plain", np.ones((2, 2))), notes)
    assert column.cell(script.scaled(np.ones((2, 2)), 4.0), notes) == "DIFFERS by 0.8"
    assert column.wrong == 1
