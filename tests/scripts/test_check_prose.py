"""The prose check finds stiff phrases, and accepts what should be written instead."""

from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = "check_prose"

STIFF_AND_PLAIN = [
    (
        "`dop doctor` tells what works there and what is missing",
        "`dop doctor` checks your installation",
    ),
    (
        "Neither the rank nor the share of the outliers is told",
        "You specify neither the rank nor the outlier fraction",
    ),
    (
        "Of more than 40 problems TensorBoard shows 40 that are spread over all",
        "With more than 40 problems, TensorBoard logs an evenly spaced sample of 40",
    ),
    ("CONTRIBUTING.md tells how to change it", "See CONTRIBUTING.md to contribute"),
    (
        "**Values, not pixels, are judged**",
        "**Corruption is detected per value, not per pixel** (`--per pixel` changes this)",
    ),
    (
        "The share that is missing is told before the start: see that the mask is not inverted",
        "The missing fraction is printed at startup; use it to catch an inverted mask",
    ),
    ("That was tried as follows", "We tested this as follows"),
    (
        "bound on the rank, at least 1, of scenes at most 16; default: found",
        "maximum rank (≥ 1; ≤ 16 for scenes); estimated by default",
    ),
    ("as many as may with SLURM", "unlimited on SLURM"),
    ("a row a problem, also where there are several seeds", "one row per problem, even with several seeds"),
    (
        "What is missing is no fault, what is a problem says what to do",
        "Missing extras are not errors; problems come with a fix",
    ),
    (
        "X must have entries whose products do not overflow, got larger ones",
        "X overflows during factorization; rescale it",
    ),
    ("moves θ by itself, got a theta_optimizer", "SemiImplicit does not support theta_optimizer"),
    (
        "A batch takes more memory than there is; smaller ones may not",
        "Batch does not fit in memory; use a smaller one",
    ),
    ("There is nothing that could be made anew", "No-op: there are no buffers to recompute"),
]

STIFF = [
    "The same command in the same folder finishes what is missing.",
    "The second command goes on from iteration 100.",
    "Should you have none at hand, this makes one.",
    "Every run has a folder of its own, and with other options another one.",
    "A number given by the user wins over the rule.",
    "JPEG comes back as PNG, since JPEG would add errors of its own.",
    "Nothing needs to be known of the damage.",
    "Where you know it, say it, in the units of the file: the range is else found in each.",
    "Problems do not influence each other, so devices need not either: whole batches go to processes, one a device.",
    "Frames of a camera that stands still are alike but for what moves.",
    "The same command takes matrices apart.",
    "It is ReLU in place of the one before.",
    "The settings were chosen by looking at F16, and coffee had no say in them, nobody knows why.",
    "Data of the world: scikit-learn's digits",
    "Two processes write at once where there is a lock, and one follows.",
    "A process of another machine is at work as long as it holds its lock.",
    "What becomes of damaged files is printed.",
    "`DualCertificate` reads ξ off the state, and makes g₀ and h₀ anew from the seeds.",
    "Of many problems TensorBoard shows a sample.",
    "A grey mask is cut at half of its largest value, so that JPEG will do.",
]
"""Sentences of earlier documents."""


@pytest.mark.parametrize("stiff", [*(stiff for stiff, _ in STIFF_AND_PLAIN), *STIFF])
def test_a_stiff_sentence_is_reported(script: ModuleType, stiff: str) -> None:
    assert script.findings(f"# Title\n\nSome text.\n\n{stiff}\n")
    assert script.findings(f"| head | cell |\n| --- | --- |\n| x | {stiff} |\n")


@pytest.mark.parametrize("plain", [plain for _, plain in STIFF_AND_PLAIN])
def test_a_plain_sentence_is_accepted(script: ModuleType, plain: str) -> None:
    assert script.findings(f"# Title\n\n{plain}\n") == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("in_words", "format_duration"),
        ("settle_device", "resolve_device"),
        ("own_corruption", "has_corruption"),
        ("do_work", "run"),
    ],
)
def test_names_are_reported(script: ModuleType, before: str, after: str) -> None:
    (found,) = script.findings(f"def {before}(x):\n    pass\n", ".py")
    assert after in found
    assert script.findings(f"def {after}(x):\n    pass\n", ".py") == []


def test_line_number_is_that_of_the_passage(script: ModuleType) -> None:
    text = "# Title\n\n```sh\nwhat goes on\n```\n\nA paragraph\nthat goes on\nhere.\n\n- one\n- it goes\n  on\n"
    assert [finding.partition(":")[0] for finding in script.findings(text)] == ["7", "12"]


def test_quoted_messages_are_skipped(script: ModuleType) -> None:
    assert script.findings("<!-- quoted -->\n\n1. it goes on\n\n<!-- end -->\n\nIt ends.\n") == []


def test_strings_of_python_are_read(script: ModuleType) -> None:
    code = '"""It goes on."""\nhelp = f"{x} goes on here"\nshort = "goes on"\n'
    (found,) = script.findings(code, ".py")
    assert found.startswith("2: 'goes on'")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ('"""Run.\n\n    What it does:\n    the run goes on.\n"""\n', "3"),
        ('alpha = 1\n"""Ratio.\n\nThe run goes on."""\n', "4"),
        ("# One run\n# of many goes\n# on here.\n", "1"),
        ("alpha = 1  # the run goes on\n", "1"),
    ],
)
def test_docstrings_and_comments_are_read_on_request(script: ModuleType, code: str, line: str) -> None:
    assert script.findings(code, ".py") == []
    (found,) = script.findings(code, ".py", docstrings=True)
    assert found.startswith(f"{line}: 'goes on'")


def test_examples_and_code_in_docstrings_are_skipped(script: ModuleType) -> None:
    code = '"""Run ``goes on``.\n\n>>> print("goes on")\n\n"""\nx = 1  # see `goes on` here\n'
    assert len(script.findings(code, ".py", docstrings=True)) == 0


def test_exit_status_reports_findings(script: ModuleType, tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.md"
    page.write_text("The run resumes.\n", encoding="utf-8")
    assert script.main([str(page)]) == 0
    page.write_text("The run goes on.\n", encoding="utf-8")
    assert script.main([str(page)]) == 1
    assert "goes on" in capsys.readouterr().out


@pytest.mark.slow  # `make lint` runs the script
def test_all_documents_and_rooms_pass(script: ModuleType, capsys) -> None:
    assert script.main([]) == 0, capsys.readouterr().out
