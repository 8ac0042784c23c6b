"""LaTeX tables for papers, with booktabs rules, escaped text and right-aligned numbers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dop_lightning.runs.results import format_cells

_GREEK = (
    "αalpha βbeta γgamma δdelta εepsilon ζzeta ηeta θtheta ιiota κkappa λlambda μmu νnu ξxi πpi ρrho ςvarsigma σsigma "
    "τtau υupsilon φphi χchi ψpsi ωomega ΓGamma ΔDelta ΘTheta ΛLambda ΞXi ΠPi ΣSigma ΦPhi ΨPsi ΩOmega"
)

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    **{character: f"\\{character}" for character in "#$%&_"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "…": r"\ldots{}",
    **{word[0]: f"$\\{word[1:]}$" for word in _GREEK.split()},
    "µ": r"$\mu$",  # the micro sign
    "ℓ": r"$\ell$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "√": r"$\surd$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "∞": r"$\infty$",
}
"""Characters that are commands in LaTeX, or that its usual text fonts lack."""

_SPECIAL = str.maketrans(ESCAPES)
_LIGATURE = re.compile(r"([-',])(?=\1)")
_NUMBER = re.compile(r"(?<![\w.])(-?)(\d+(?:\.\d*)?)(?:e([+-]\d+))?")
_BEST = re.compile(r"\*\*(.*)\*\*")


def render_latex(results: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> str:
    r"""Render results as a ``tabular`` environment with booktabs rules.

    Args:
        results: rows; in numeric columns, ``**…**`` marks the best value, as in Markdown, and becomes bold.
        columns: ``(key, title, format)``, as for :func:`~dop_lightning.runs.results.render_table`.

    >>> rows = [{"problem": "a_1", "psnr": "**23.51**"}, {"problem": "b", "psnr": "20.00"}]
    >>> print(render_latex(rows, [("problem", "problem", ""), ("psnr", "PSNR", ">")]))
    % \usepackage{booktabs}
    \begin{tabular}{lr}
    \toprule
    problem & PSNR \\
    \midrule
    a\_1 & \textbf{23.51} \\
    b & 20.00 \\
    \bottomrule
    \end{tabular}
    """
    known, (titles, *rows) = format_cells(results, columns)
    is_text = [spec == "" for _, _, spec in known]
    body = [
        [escape(cell) if text else format_number(cell) for cell, text in zip(row, is_text, strict=True)] for row in rows
    ]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            f"\\begin{{tabular}}{{{''.join('l' if text else 'r' for text in is_text)}}}",
            r"\toprule",
            _line(map(escape, titles)),
            r"\midrule",
            *map(_line, body),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def escape(text: str) -> str:
    r"""Escape text for LaTeX.

    >>> escape("50 % of n_1 & α--β")
    '50 \\% of n\\_1 \\& $\\alpha$-{}-$\\beta$'
    """
    text = _LIGATURE.sub(r"\1\0", " ".join(text.replace("\0", " ").split()))
    text = text.translate(_SPECIAL).replace("\0", "{}")
    # after \\ and \midrule, a bracket would begin an optional argument
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def format_number(text: str) -> str:
    r"""Format a numeric cell: minus signs, powers of ten, and bold for the best value.

    >>> format_number("**-1.5e-05 ± 2e-06**"), format_number("30.00 (2 of 3)")
    ('{\\boldmath\\textbf{$-1.5 \\cdot 10^{-5}$ $\\pm$ $2 \\cdot 10^{-6}$}}', '30.00 (2 of 3)')
    """
    if best := _BEST.fullmatch(text):
        inner = format_number(best[1])
        return f"{{\\boldmath\\textbf{{{inner}}}}}" if "$" in inner else f"\\textbf{{{inner}}}"
    return _NUMBER.sub(_number, escape(text))


def _number(found: re.Match[str]) -> str:
    sign, digits, exponent = found.groups()
    if exponent:
        return f"${sign}{digits} \\cdot 10^{{{int(exponent)}}}$"
    return f"{'$-$' if sign else ''}{digits}"


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
