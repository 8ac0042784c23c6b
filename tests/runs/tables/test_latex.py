"""LaTeX tables: escaped text, rows and columns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dop_lightning.runs.tables.latex import ESCAPES, escape, format_number, render_latex

SHOWN = {latex: character for character, latex in ESCAPES.items()}
TOKEN = re.compile(r"\{[\[*]\}|\{\}|\$[^$]+\$|\\[A-Za-z]+\{\}|\\.|[^\\{}#$%&_~^`<>|]", re.DOTALL)
"""An escape, or a character that means itself."""


def read(latex: str) -> str:
    """What LaTeX shows; an error where a character would be read as a command."""
    shown, end = "", 0
    while end < len(latex):
        token = TOKEN.match(latex, end)
        assert token, f"{latex[end]!r} is not escaped in {latex!r}"
        text, end = token[0], token.end()
        shown += "" if text == "{}" else text[1] if text[0] == "{" else SHOWN.get(text, text)
    return shown


@given(st.text(alphabet=st.one_of(st.sampled_from([*ESCAPES, *"[]*-',.1 aß\n\t\0"]), st.characters(codec="utf-8"))))
def test_escaped_text_renders_unchanged(text: str) -> None:
    latex = escape(text)
    same = str.maketrans({"µ": "μ", "ο": "o"})
    assert read(latex).translate(same) == " ".join(text.replace("\0", " ").split()).translate(same)
    assert not re.search(r"--|''|,,", latex)
    assert not latex.startswith(("[", "*"))


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("salt_and_pepper", r"salt\_and\_pepper"),
        ("50% & #1 of $x$", r"50\% \& \#1 of \$x\$"),
        (r"C:\{a}~^", r"C:\textbackslash{}\{a\}\textasciitilde{}\textasciicircum{}"),
        ("α, τ ≤ 2·10", r"$\alpha$, $\tau$ $\leq$ 2$\cdot$10"),
        ("alpha--4", "alpha-{}-4"),
        ("[1, 2]", "{[}1, 2]"),
        ("*", "{*}"),
        ("two\nlines", "two lines"),
        ("", ""),
    ],
)
def test_text(text: str, latex: str) -> None:
    assert escape(text) == latex


@pytest.mark.parametrize(
    ("cell", "latex"),
    [
        ("23.51", "23.51"),
        ("-3", "$-$3"),
        ("1e-05", r"$1 \cdot 10^{-5}$"),
        ("-2.5e+10", r"$-2.5 \cdot 10^{10}$"),
        ("30.00 ± 0.10", r"30.00 $\pm$ 0.10"),
        ("**30.00**", r"\textbf{30.00}"),
        ("**30.00 ± 0.10**", r"{\boldmath\textbf{30.00 $\pm$ 0.10}}"),
        ("2 of 3", "2 of 3"),
        ("30.00 (2 of 3)", "30.00 (2 of 3)"),
        ("nan", "nan"),
    ],
)
def test_numbers(cell: str, latex: str) -> None:
    assert format_number(cell) == latex


def test_a_table_has_the_rules_of_booktabs_and_numbers_to_the_right() -> None:
    rows = [
        {"name": "[a] & b", "psnr": "**30.00**", "seconds": 1.25},
        {"name": r"\\ 100%", "psnr": None, "seconds": None},
        {"name": "**c**", "psnr": "20.00", "seconds": 10.0},
    ]
    columns = [("name", "model_name", ""), ("none", "unknown", ""), ("psnr", "PSNR", ">"), ("seconds", "s", ".1f")]
    lines = render_latex(rows, columns).splitlines()
    assert lines == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"model\_name & PSNR & s \\",
        r"\midrule",
        r"{[}a] \& b & \textbf{30.00} & 1.2 \\",
        r"\textbackslash{}\textbackslash{} 100\% &  &  \\",
        r"{*}*c** & 20.00 & 10.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    for line in [lines[3], *lines[5:-2]]:
        assert len(re.findall(r"(?<!\\)&", line)) == 2
        assert line.endswith(r" \\")
