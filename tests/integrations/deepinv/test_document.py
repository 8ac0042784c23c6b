"""The blocks of docs/deepinv.md, one after the other."""

from typing import Any

import pytest

pytest.importorskip("deepinv", exc_type=ImportError)

from tests.documents.harness import DOCS, blocks, run_python

PAGE = DOCS / "deepinv.md"


def test_code_of_the_page_runs() -> None:
    names: dict[str, Any] = {}
    printed = [run_python(block, PAGE, names) for block in blocks(PAGE, "python")]
    assert printed == ["", "PSNR\n", ""]
    assert names["x_hat"].shape == (1, 3, 48, 48)
