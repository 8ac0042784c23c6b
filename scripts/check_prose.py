"""Report stiff phrases in documents, help texts and messages: the phrases of scripts/prose.toml.

    python scripts/check_prose.py             # all documents and rooms of scripts/prose.toml
    python scripts/check_prose.py FILE…       # Markdown or Python files

Code in documents is skipped, and so is text between ``<!-- quoted -->`` and ``<!-- end -->``. In Python files, the
check reads strings of at least three words, and names of functions and classes. With ``--docstrings``, and in the
folders that ``docstrings`` of scripts/prose.toml lists, it also reads docstrings and comments. The exit status is 1 if
a phrase is found.
"""

import argparse
import ast
import io
import re
import sys
import textwrap
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RULES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("prose.toml").read_text(encoding="utf-8"))
PHRASES = [(re.compile(phrase, re.IGNORECASE), advice) for phrase, advice in RULES["phrases"].items()]

FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1`*[^\n]*$|<!-- quoted -->.*?<!-- end -->", re.MULTILINE | re.DOTALL)
ASIDE = re.compile(r"`+[^`]+`+|\$[^$\n]+\$|\]\([^)\s]*\)|<!--.*?-->", re.DOTALL)
BREAK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.)\s?)|(?<=\S) \| (?=\S)")


class Passage(NamedTuple):
    """Text of a paragraph, a cell of a table or a string, on one line, and the line where it begins."""

    line: int
    text: str


def passages_of_markdown(text: str) -> Iterator[Passage]:
    """Yield paragraphs, items and cells, with ``CODE`` for what is in backquotes."""
    prose = FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
    prose = ASIDE.sub(lambda code: ("](" if code[0].startswith("](") else "CODE") + "\n" * code[0].count("\n"), prose)
    place = 0
    for end in [*(found.start() for found in BREAK.finditer(prose)), len(prose)]:
        piece = prose[place:end]
        line = prose.count("\n", 0, place + len(piece) - len(piece.lstrip())) + 1
        if words := " ".join(piece.strip(" |\n").split()):
            yield Passage(line, re.sub(r"^(?:[-*#>|]+|\d+\.)\s+|\*\*", "", words))
        place = end


def passages_of_python(text: str) -> Iterator[Passage]:
    """Yield strings of at least three words, with ``CODE`` for values, and without docstrings."""
    tree = ast.parse(text)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            string = "".join(str(part.value) if isinstance(part, ast.Constant) else "CODE" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            string = node.value
        else:
            continue
        if len(string.split()) >= 3:
            yield Passage(node.lineno, " ".join(string.split()))


def passages_of_docstrings(text: str) -> Iterator[Passage]:
    """Yield the paragraphs of docstrings, also of those below attributes, without examples (``>>>``)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, _, others = node.value.value.partition("\n")
            lines = [first.strip(), *textwrap.dedent(others).split("\n")]
            kept = "\n".join("" if line.lstrip().startswith((">>>", "...")) else line for line in lines)
            for passage in passages_of_markdown(kept):
                yield Passage(node.lineno + passage.line - 1, passage.text)


def passages_of_comments(text: str) -> Iterator[Passage]:
    """Yield comments of at least three words; adjacent lines are one passage."""
    block: list[str] = []
    begin, last = 0, -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1 or not token.line.lstrip().startswith("#"):
            yield from _comment(begin, block)
            begin, block = token.start[0], []
        last = token.start[0]
        block.append(token.string.lstrip("#! "))
    yield from _comment(begin, block)


def _comment(line: int, block: list[str]) -> Iterator[Passage]:
    words = ASIDE.sub("CODE", " ".join(block)).split()
    if len(words) >= 3:
        yield Passage(line, " ".join(words))


def named(text: str) -> list[str]:
    """Return a line for each function, class or argument that has one of the reported names."""
    found = []
    for node in ast.walk(ast.parse(text)):
        name = node.arg if isinstance(node, ast.arg) else getattr(node, "name", None)
        if isinstance(name, str) and (better := RULES["names"].get(name)):
            found.append(f"{getattr(node, 'lineno', 0)}: '{name}' ({better}): a name")
    return found


def sentences(text: str) -> list[str]:
    """Split a passage at the ends of sentences."""
    return re.split(r"(?<=[.:;!?])\s+", text)


def findings(text: str, kind: str = ".md", docstrings: bool = False) -> list[str]:
    """Return a line for each phrase that is found in a text: its line, the phrase and what to write instead.

    Args:
        text: content of a file.
        kind: ``.md`` or ``.py``.
        docstrings: whether docstrings and comments of a Python file are read too.
    """
    passages = list(passages_of_python(text) if kind == ".py" else passages_of_markdown(text))
    if kind == ".py" and docstrings:
        passages = sorted([*passages, *passages_of_docstrings(text), *passages_of_comments(text)])
    names = named(text) if kind == ".py" else []
    return names + [
        f"{passage.line}: '{found[0]}' ({advice}): {sentence}"
        for passage in passages
        for sentence in sentences(passage.text)
        for phrase, advice in PHRASES
        if (found := phrase.search(sentence))
    ]


def files() -> list[Path]:
    """Return the documents and modules that are checked."""
    documents = [path for pattern in RULES["documents"] for path in sorted(ROOT.glob(pattern))]
    skipped = {ROOT / name for name in RULES["skipped"]}
    modules = [path for room in RULES["rooms"] for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in [*documents, *modules] if path not in skipped]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check files, and print what is found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: all of scripts/prose.toml")
    parser.add_argument("--docstrings", action="store_true", help="read docstrings and comments of all Python files")
    options = parser.parse_args(arguments)
    read = [ROOT / room for room in RULES["docstrings"]]
    found = 0
    for path in options.files or files():
        docstrings = options.docstrings or any(path.is_relative_to(room) for room in read)
        for line in findings(path.read_text(encoding="utf-8"), path.suffix, docstrings):
            print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
