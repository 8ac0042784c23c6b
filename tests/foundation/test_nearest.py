"""Suggestions for misspelled words, and none for unrelated ones."""

import pytest

from dop_lightning.foundation.nearest import did_you_mean, nearest

WORDS = ["alpha", "auto", "corruption", "evaluate_every", "lr", "max_steps", "min_steps", "tau", "SaltAndPepper"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tua", "tau"),  # swapped
        ("taux", "tau"),  # added
        ("alpa", "alpha"),  # missing
        ("autp", "auto"),  # another
        ("max-steps", "max_steps"),
        ("Evaluate_Every", "evaluate_every"),
        ("evaluateevery", "evaluate_every"),
        ("corupttion", "corruption"),
        ("SaltNPepper", "SaltAndPepper"),
        ("lrr", "lr"),
        ("rl", "lr"),
        ("Pepper", "SaltAndPepper"),  # a part of the name, and of no other
        ("evaluate", "evaluate_every"),
    ],
)
def test_a_typo_is_recognised(typed: str, meant: str) -> None:
    assert nearest(typed, WORDS) == meant
    assert did_you_mean(typed, WORDS) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("typed", ["xyzzy", "", "n", "tv", "gamma", "learning_rate", "ta-da!", "steps", "every"])
def test_unrelated_word_gets_no_suggestion(typed: str) -> None:
    words = [word for word in WORDS if word != "evaluate_every"]
    assert nearest(typed, words) is None
    assert did_you_mean(typed, words) == ""


@pytest.mark.parametrize("typed", [3, None, 1.5, ["tau"]])
def test_only_strings_are_compared(typed: object) -> None:
    assert did_you_mean(typed, [*WORDS, "3", "None"]) == ""


def test_the_word_itself_is_not_suggested() -> None:
    assert did_you_mean("tau", WORDS) == ""


def test_first_of_several_is_suggested() -> None:
    assert nearest("mix_steps", ["max_steps", "min_steps"]) == "max_steps"
    assert nearest("min_step", ["max_steps", "min_steps"]) == "min_steps"
