"""The page of a run: what came out, problem by problem, and how to repeat it. Nothing in it is fetched."""

import base64
import hashlib
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from dop_lightning.runs.folder import CONFIG
from dop_lightning.runs.report.curves import overlaid_charts
from dop_lightning.runs.report.embed import A_FEW, SIDE, SIDE_OF_MANY
from dop_lightning.runs.report.problem import MEANING, chart_row, problem_section, status_chip
from dop_lightning.runs.report.reading import RunFiles
from dop_lightning.runs.report.text import counted, escape, escape_lines, number, score
from dop_lightning.runs.results import SUMMARY

MOST_ROWS = 2000
"""Rows of the table of all problems."""

VERSIONS = ("dop_lightning", "torch", "pytorch_lightning", "numpy", "python")

MEANS = (
    ("input_psnr", "PSNR as observed"),
    ("psnr", "PSNR recovered"),
    ("ssim", "SSIM"),
    ("relative_error", "relative error of X"),
)


def render(run: RunFiles, page: Path) -> str:
    """The HTML of a run.

    Args:
        run: what its folder has to tell.
        page: where the page will be.

    Raises:
        ValueError: a file of a problem is damaged.
    """
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    # Were there a gap in the escaping, nothing that came through it would run or be fetched.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = escape(run.folder.resolve().name or run.folder)
    side = SIDE if len(run.shown) <= A_FEW else SIDE_OF_MANY
    anchors = {problem.name: f"p{place}" for place, problem in enumerate(run.shown, 1)}
    sections = "".join(problem_section(problem, anchors[problem.name], page, side) for problem in run.shown)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} – dop report</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{_headline(run)}
</header>
<main>
{_overview(run, anchors)}
{sections}
{_repeat(run)}
</main>
<script>{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _headline(run: RunFiles) -> str:
    """How many problems there are and what has become of them; the means of their scores."""
    count = len(run.problems)
    order = dict.fromkeys(status for status in (*MEANING, *run.statuses) if run.statuses[status])
    if count == 1:
        chips = status_chip(next(iter(order)))
    else:
        chips = " ".join(f"{number(run.statuses[status])} {status_chip(status)}" for status in order)
    means = []
    for key, title in MEANS:
        values = [problem.result[key] for problem in run.problems if problem.result.get(key) is not None]
        if values:
            mean = "mean " if len(values) > 1 else ""
            value = score(key, sum(values) / len(values))
            means.append(f"<li><b>{escape(value)}</b><span>{mean}{escape(title)}</span></li>")
    tiles = f'<ul class="means">{"".join(means)}</ul>' if means else ""
    return f'<p class="headline">{counted(count)}: {chips}</p>{tiles}'


def _overview(run: RunFiles, anchors: Mapping[str, str]) -> str:
    """The table of all, and the curves over each other; of a single problem neither says more than its section."""
    if len(run.problems) == 1:
        return ""
    columns = [column for column in SUMMARY if any(p.result.get(column[0]) is not None for p in run.problems)]
    columns = [column for column in columns if column[0] not in ("problem", "status")]
    head = "".join(f'<th scope="col" class="n">{escape(title)}</th>' for _, title, _ in columns)
    rows = []
    for problem in run.problems[:MOST_ROWS]:
        name = escape(problem.name)
        if problem.name in anchors:
            name = f'<a href="#{anchors[problem.name]}">{name}</a>'
        values = [(problem.result.get(key), spec) for key, _, spec in columns]
        texts = ["" if value is None else format(value, spec) for value, spec in values]
        cells = "".join(f'<td class="n">{escape(text)}</td>' for text in texts)
        rows.append(f'<tr><th scope="row">{name}</th><td>{status_chip(problem.status)}</td>{cells}</tr>')
    left = len(run.problems) - MOST_ROWS
    notes = [f"… and {left:,} more, in results.csv."] if left > 0 else []
    if len(run.shown) < len(run.problems):
        notes.append(
            f"Pictures and curves follow of {len(run.shown):,} of {len(run.problems):,} problems, spread over those "
            "that have pictures; dop report --most shows more."
        )
    charts = overlaid_charts(run.shown)
    return f"""<section aria-labelledby="all">
<h2 id="all">All problems</h2>
<div class="scroll" role="region" aria-label="Scores of all problems" tabindex="0">
<table><thead><tr><th scope="col">problem</th><th scope="col">status</th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>
{"".join(f"<p>{escape(note)}</p>" for note in notes)}
{chart_row(charts)}
</section>"""


def repeat_command(run: Path) -> str:
    """The command that repeats a run in another folder.

    >>> repeat_command(Path("my run"))
    "dop fit --config 'my run/config.yaml' --trainer.default_root_dir 'my run-again'"
    """
    folder = str(run.resolve() if run.name in ("", "..") else run)  # «.» has no name to put something behind
    if folder.startswith("-"):
        folder = f"./{folder}"  # else it would be an option
    options = ["--config", f"{folder}/{CONFIG}", "--trainer.default_root_dir", f"{folder}-again"]
    return shlex.join(["dop", "fit", *options])


def _repeat(run: RunFiles) -> str:
    """The command, the settings and the versions."""
    parts = []
    if run.config is not None:
        parts.append(
            '<h2 id="again">Repeat it</h2><div class="command"><pre tabindex="0"><code>'
            f'{escape(repeat_command(run.folder))}</code></pre><button type="button" hidden>Copy</button></div>'
            "<p>Without <code>-again</code>, the same command finishes what is missing in the folder of the run.</p>"
            f"<details><summary>All settings ({CONFIG})</summary>"
            f'<pre tabindex="0"><code>{escape_lines(run.config)}</code></pre></details>'
        )
    if versions := _versions(run):
        parts.append(f"<h3>Versions</h3>{versions}")
    return f'<section class="repeat">{"".join(parts)}</section>' if parts else ""


def _versions(run: RunFiles) -> str:
    """What the problems were computed by: one row a kind of machine."""
    machines: dict[tuple[tuple[str, str], ...], int] = {}
    for problem in run.problems:
        machine = problem.result.get("machine")
        if machine:
            key = tuple((name, str(value)) for name, value in machine.items())
            machines[key] = machines.get(key, 0) + 1
    lists = []
    for machine, count in machines.items():
        known = dict(machine)
        order = [*(name for name in VERSIONS if name in known), *(name for name in known if name not in VERSIONS)]
        rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(known[name])}</dd></div>" for name in order)
        note = f"<p>{counted(count)}:</p>" if len(machines) > 1 else ""
        lists.append(f'{note}<dl class="wide">{rows}</dl>')
    return "".join(lists)
