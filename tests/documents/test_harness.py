"""What finds, runs and parses the blocks of documents, and the script that runs a page as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.harness import ROOT, Block, BlockError, Reader, blocks, check_dop, check_script, commands, words_of

PAGE = """# A page

```sh
echo one \\
  two  # not this
FIRST=1 echo "$HOME" three
```

- ```python
  not at the start of a line
  ```

```{eval-rst}
a directive
```

```python
number = 41
```

```
printed
```

````python
print(number + 1, "```")
````
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "page.md"
    file.write_text(PAGE, encoding="utf-8")
    return file


def test_blocks_and_commands(page: Path) -> None:
    assert [(block.kind, block.line) for block in blocks(page)] == [("sh", 3), ("python", 17), ("", 21), ("python", 25)]
    assert [block.first_line for block in blocks(page, "python")] == ["number = 41", 'print(number + 1, "```")']
    assert commands(page) == ["echo one two", 'FIRST=1 echo "$HOME" three']
    assert words_of(commands(page)[1]) == ["echo", "$HOME", "three"]


def test_a_page_is_run(page: Path) -> None:
    reader = Reader(page)
    assert [reader.run(block) for block in blocks(page, "python")] == ["", "42 ```\n"]
    assert Reader(page, skip=["FIRST"]).run(blocks(page, "sh")[0]) == "one two\n"


def test_a_block_that_fails(page: Path) -> None:
    for smaller in (None, list):
        with pytest.raises(BlockError, match=r"false.* ended with status 1"):
            Reader(page, smaller=smaller).run(Block("sh", "false", 7))
    with pytest.raises(BlockError, match=r"page\.md:7: dop nothing ended with status 2"):
        Reader(page).run(Block("sh", "dop nothing", 7))


def test_commands_are_parsed() -> None:
    check_dop(["recover", "photo.png", "--out", "restored"])
    check_dop(["fit", "--config", "configs/matrix.yaml"])
    for arguments in (
        ["recover", "--outward", "restored"],
        ["fit", "--config", "configs/matrix.yaml", "--model.t", "1"],
    ):
        with pytest.raises(BlockError, match="is refused"):
            check_dop(arguments)
    script = ROOT / "scripts" / "run_document.py"
    check_script(script, ["README.md"])
    with pytest.raises(SystemExit):
        check_script(script, ["README.md", "--nothing"])


def test_script_runs_a_page_unchanged(page: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "run_document.py"), str(page)]
    done = subprocess.run([*command, "--show"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if "|" in line][-1] == "       | 42 ```"
    assert f"{page}: succeeded" in done.stdout
    page.write_text(PAGE.replace("number + 1", "numbers + 1"), encoding="utf-8")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "NameError: name 'numbers' is not defined" in done.stdout
    assert "FAILED" in done.stdout
