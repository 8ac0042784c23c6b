"""Suggest the intended word for a typo, at the end of an error message: ``; did you mean 'tau'?``."""

import re
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the most similar of several words, or ``None`` if none is similar.

    Case, hyphens and underscores are ignored. Up to a third of the letters of the shorter word may be wrong, missing,
    added or swapped with their neighbour. A word that is a whole part of longer names also matches the shortest one.

    Args:
        word: the word that was entered.
        words: the allowed words.

    >>> nearest("tua", ["alpha", "tau", "steps"])
    'tau'
    >>> nearest("SkipUnet", ["Factor", "SkipUNet"])
    'SkipUNet'
    >>> nearest("Hadamard", ["HadamardCorruption", "NoCorruption"])
    'HadamardCorruption'
    >>> nearest("UNet", ["SmallPlainUNet", "SkipUNet"])
    'SkipUNet'
    >>> nearest("xyzzy", ["tau", "steps"])
    """
    plain, others = _normalise(word), list(dict.fromkeys(words))
    distances = [(_distance(plain, _normalise(other)), place) for place, other in enumerate(others)]
    close = [(far, place) for far, place in distances if far <= _max_distance(plain, _normalise(others[place]))]
    if close:
        return others[min(close)[1]]
    longer = [other for other in others if len(plain) >= 4 and plain in _affixes(other)]
    shortest = [other for other in longer if len(other) == min(map(len, longer))]
    return shortest[0] if len(shortest) == 1 else None


def did_you_mean(word: object, words: Iterable[str], quote: bool = True) -> str:
    """Return the end of a message that suggests the nearest word, or an empty string if no word is similar.

    Args:
        word: the value that was entered. If it is not a string, no word is suggested.
        words: the allowed words.
        quote: whether to put the suggestion in quotes.

    >>> "mode must be one of fast, slow, got 'fats'" + did_you_mean("fats", ["fast", "slow"])
    "mode must be one of fast, slow, got 'fats'; did you mean 'fast'?"
    >>> did_you_mean("xyzzy", ["fast", "slow"])
    ''
    """
    meant = nearest(word, words) if isinstance(word, str) else None
    if meant is None or meant == word:
        return ""
    return f"; did you mean {meant!r}?" if quote else f"; did you mean {meant}?"


def _max_distance(one: str, two: str) -> int:
    """Return the largest distance of two similar words. Words of two swapped letters are also similar."""
    same = len(min(one, two, key=len)) == 2 and set(one) == set(two)
    return 1 if same else min(len(one), len(two)) // 3


def _normalise(word: str) -> str:
    return re.sub(r"[-_\s]", "", word).casefold()


def _affixes(word: str) -> set[str]:
    """Return all prefixes and suffixes of a name at word boundaries (``max_steps``, ``HadamardCorruption``)."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W_A-Z]+", word)
    return {_normalise("".join(some)) for i in range(len(parts)) for some in (parts[:i], parts[i:])}


def _distance(one: str, two: str) -> int:
    """Return the number of letters to replace, add, remove or swap with their neighbour to equate two words.

    This is the Damerau-Levenshtein distance in its restricted form (optimal string alignment).
    """
    earlier: list[int] = []
    last = list(range(len(two) + 1))
    for i, a in enumerate(one):
        row = [i + 1]
        for j, b in enumerate(two):
            row.append(min(row[j] + 1, last[j + 1] + 1, last[j] + (a != b)))
            if i and j and a == two[j - 1] and b == one[i - 1]:
                row[-1] = min(row[-1], earlier[j - 1] + 1)
        earlier, last = last, row
    return last[-1]
