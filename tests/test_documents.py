"""The reader of Markdown overlooks nothing: what it does not see, tests/test_docs.py would not test."""

from pathlib import Path

from tests.documents import Document, commands

TEXT = """\
# A title: `code` & more

See [the job](jobs/a.py "what"), [below](#a-title-code--more), ![plot](docs/plot.png) and [reference].
<img width="3" src="docs/logo.svg"> `inq_ray/core/` holds it; `tests/test_*.py` too, see jobs/b.py.
Use `--epochs 4` or `--seed`.

[reference]: https://example.org

```python
print("[no](link)")
```

<!-- not run: it needs
eight GPUs -->
```bash
# a comment
RAY_ADDRESS=auto make test ARGS="-k one" && make lint   # another
python jobs/a.py --name "two words" \\
    --epochs 4
```

```console
$ make demo; make bench
some output
```
"""


def _document(text: str = TEXT) -> Document:
    return Document(path=Path("README.md"), text=text)


def test_blocks() -> None:
    blocks = list(_document().blocks())
    assert [(block.language, block.line) for block in blocks] == [("python", 10), ("bash", 16), ("console", 23)]
    assert [block.not_run for block in blocks] == [None, "it needs eight GPUs", None]
    assert blocks[0].text == 'print("[no](link)")\n'


def test_commands() -> None:
    _, bash, console = _document().blocks()
    assert commands(bash) == [
        ["make", "test", "ARGS=-k one"],
        ["make", "lint"],
        ["python", "jobs/a.py", "--name", "two words", "--epochs", "4"],
    ]
    assert commands(console) == [["make", "demo"], ["make", "bench"]]


def test_links_anchors_paths_and_flags() -> None:
    document = _document()
    assert sorted(document.links()) == [
        "#a-title-code--more",
        "docs/logo.svg",
        "docs/plot.png",
        "https://example.org",
        "jobs/a.py",
    ]
    assert document.anchors() == {"a-title-code--more"}
    assert document.paths() == {"jobs/a.py", "inq_ray/core/", "tests", "jobs/b.py"}
    assert document.flags() == {"--epochs", "--seed"}


def test_fences_that_would_be_overlooked_are_seen() -> None:
    assert _document().stray_fences() == []
    assert _document("- a list\n  ```python\n  x\n  ```\n").stray_fences() == ["  ```python", "  ```"]
    assert _document("~~~\nx\n~~~\n").stray_fences() == ["~~~", "~~~"]
    assert _document("```python\nnever closed\n").stray_fences() == ["```python"]
