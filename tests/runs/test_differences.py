"""Differences of settings, and their messages."""

import pytest

from dop_lightning.runs.differences import differences

FACTOR, WIDE = {"class_path": "Factor"}, list(range(100))
SAVED = {
    "signal": {**FACTOR, "init_args": {"rank": 3, "scale": 0.1}},
    "loss": None,
    "noise": [{"class_path": "SaltAndPepper", "init_args": {"ratio": 0.3}}],
    "wide": WIDE,
}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"signal": {**FACTOR, "init_args": {"rank": 4, "scale": 0.1}}}, "m.signal.rank: 3 in the run, 4 given"),
        ({"signal": {**FACTOR, "init_args": {"rank": 3}}}, "m.signal.scale: 0.1 in the run, null given"),
        ({"signal": FACTOR}, "m.signal.rank: 3 in the run, null given"),
        ({"signal": {"class_path": "SkipUNet"}}, "m.signal: Factor in the run, SkipUNet given"),
        (
            {"loss": {"class_path": "SquaredLoss", "init_args": {"reduction": "mean", "more": None}}},
            "m.loss: null in the run, SquaredLoss(reduction=mean) given",
        ),
        ({"noise": []}, "m.noise: [SaltAndPepper(ratio=0.3)] in the run, [] given"),
        ({"graphs": True}, "m.graphs: null in the run, true given"),
        ({"wide": 1}, f"m.wide: {str(WIDE)[:59]}… in the run, 1 given"),
    ],
)
def test_a_difference_names_the_setting_and_both_values(given: dict, text: str) -> None:
    found = list(differences(SAVED, {**SAVED, **given}, "m"))
    assert str(found[0]) == text
    assert found[0].key == text.partition(":")[0]


def test_equal_settings_have_no_differences() -> None:
    assert not list(differences(SAVED, {**SAVED, "added": None}, "m"))
