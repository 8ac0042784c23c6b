"""Tables as LaTeX, for papers: booktabs rules, escaped text, numbers to the right."""

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
    "µ": r"$\mu$",  # the sign of micro
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
"""Characters that LaTeX reads as commands, or that its usual fonts lack in text."""

_SPECIAL = str.maketrans(ESCAPES)
_LIGATURE = re.compile(r"([-',])(?=\1)")
_NUMBER = re.compile(r"(?<![\w.])(-?)(\d+(?:\.\d*)?)(?:e([+-]\d+))?")
_BEST = re.compile(r"\*\*(.*)\*\*")


def render_latex(results: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> str:
    r"""Results as a ``tabular`` environment with the rules of booktabs.

    Args:
        results: rows; in columns of numbers ``**…**`` marks the best, as in Markdown, and becomes bold.
        columns: ``(key, title, format)``, as :func:`~dop_lightning.runs.results.render_table` takes them.

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
    r"""Text as LaTeX that shows the same.

    >>> escape("50 % of n_1 & α--β")
    '50 \\% of n\\_1 \\& $\\alpha$-{}-$\\beta$'
    """
    text = _LIGATURE.sub(r"\1\0", " ".join(text.replace("\0", " ").split()))
    text = text.translate(_SPECIAL).replace("\0", "{}")
    # after \\ and \midrule a bracket would begin an option
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def format_number(text: str) -> str:
    r"""A cell of a column of numbers: a minus sign, powers of ten, and bold for the best.

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
