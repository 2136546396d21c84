"""What the documents say is so: their links lead somewhere, their snippets run, their commands exist.

The conventions stand in CONTRIBUTING.md, "Documents". A block can be left out only by an HTML comment before it that
gives the reason, and is then reported as skipped.
"""

import ast
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from safetensors.torch import load_file

from inq_ray.cli.program import COMMANDS
from inq_ray.data.parquet.writer import plan_folder, write_shards
from inq_ray.storage.address import locate
from tests.conftest import REPO
from tests.data.parquet_files import encode, random_images
from tests.documents import Block, Document, commands
from tests.s3 import serve_s3

pytestmark = pytest.mark.system

_SHELL = ("bash", "sh", "shell", "console")
_TEXT = ("", "text", "json", "toml", "yaml", "csv", "diff", "make")

pytest.importorskip("ray", reason="the jobs run on Ray")

# Runs a job of ours, given its path below the checkout and its flags, in a folder; gives what it prints.
Job = Callable[[list[str], Path], str]

# Commands of other people's tools: that they exist is not ours to test.
_FOREIGN = {
    *("cd", "curl", "export", "git", "hf download", "pip install", "python -m pytest", "source"),
    *("ray job", "ray start", "ray status", "ray stop"),
}
# The job that a command of the program is tried as: with --dry-run, an evaluation too.
_JOBS = {"quantize": "quantize_imagenet", "evaluate": "quantize_imagenet", "sweep": "sweep_schedules"}
_JOBS |= {"parquet": "make_parquet", "benchmark": "benchmark_cluster"}


def _documents() -> list[Document]:
    below = [
        path
        for folder in ("docs", "docker", "inq_ray", "benchmarks", "tests")
        for path in (REPO / folder).rglob("*.md")
    ]
    paths = [*REPO.glob("*.md"), *below]
    return [Document.read(path) for path in sorted(paths)]


DOCUMENTS = _documents()
BLOCKS = [(document, block) for document in DOCUMENTS for block in document.blocks()]


def _place(document: Document, block: Block) -> str:
    return f"{document.path.relative_to(REPO)}:{block.line}"


def _imports_ray(block: Block) -> bool:
    for node in ast.walk(ast.parse(block.text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.partition(".")[0] == "ray" or name.startswith("inq_ray.cluster") for name in names):
            return True
    return False


PYTHON = [(document, block) for document, block in BLOCKS if block.language == "python"]
SNIPPETS = [
    pytest.param(block, id=_place(document, block), marks=[pytest.mark.ray] if _imports_ray(block) else [])
    for document, block in PYTHON
]
# The data that the documents call by these names are made up for the tests.
_MADE_UP = re.compile(r"imagenet(-parquet)?|s3://my-bucket/.*")
# What the documents say how to download. The tests have it from ../shared/data, if that is there.
_PUBLIC = ("cifar10", "resnet20-12fca82f.th")


def _distinct_commands() -> Iterator[object]:
    """A parameter for each command of the documents, where it stands first."""
    seen = set()
    for document, block in BLOCKS:
        for words in commands(block) if block.language in _SHELL else ():
            if (*words, block.not_run) not in seen:
                seen.add((*words, block.not_run))
                yield pytest.param(block, words, id=f"{_place(document, block)} {' '.join(words)[:60]}")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_the_documents_are_read(name: str) -> None:
    assert REPO / name in [document.path for document in DOCUMENTS]


def test_the_readme_has_snippets_and_commands_to_test() -> None:
    languages = {block.language for document, block in BLOCKS if document.path == REPO / "README.md"}
    assert "python" in languages
    assert languages & {*_SHELL}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.path.relative_to(REPO)))
def test_links_and_paths_lead_somewhere(document: Document) -> None:
    assert document.stray_fences() == []
    missing = []
    for link in document.links():
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        path = document.path.parent / target if target else document.path
        if not path.exists() or (anchor and anchor not in Document.read(path).anchors()):
            missing.append(link)
    missing += [path for path in sorted(document.paths()) if not (REPO / path).exists()]
    assert missing == []


@pytest.mark.parametrize(("document", "block"), BLOCKS, ids=[_place(*found) for found in BLOCKS])
def test_every_block_says_what_it_is(document: Document, block: Block) -> None:
    assert block.language in ("python", *_SHELL, *_TEXT), (
        f"{block.language} is no language that tests/test_docs.py knows"
    )


@pytest.mark.parametrize("block", SNIPPETS)
def test_snippet_runs(block: Block, job_env: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    _skip_if_left_out(block)
    if _imports_ray(block):
        job_env["RAY_ADDRESS"] = request.getfixturevalue("ray_cluster").address
    script = tmp_path / "snippet.py"
    script.write_text(block.text)
    _run([sys.executable, str(script)], cwd=tmp_path, env={**job_env, "PYTHONPATH": str(REPO)})


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `imagenet` and `imagenet-parquet`: 300 images of 10 classes to train on, 10 to validate on."""
    folder = tmp_path_factory.mktemp("documents")
    images = [encode(pixels, "JPEG") for pixels in random_images(10, height=100, width=120)]
    for split, num_images in (("train", 300), ("val", 10)):
        for number in range(num_images):
            path = folder / "imagenet" / split / f"n{number % 10:08}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[number % 10])
    for plan in plan_folder(str(folder / "imagenet"), seed=0, shard_bytes=10**6):
        list(write_shards(plan, locate(str(folder / "imagenet-parquet")), rows_per_group=16))
    return folder


@pytest.fixture(scope="session")
def public(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Parquet of `cifar10`, and with weights in the form of akamaster/pytorch_resnet_cifar10."""
    folder = tmp_path_factory.mktemp("public")
    (folder / "cifar10").symlink_to(shared_data / "cifar10")
    weights = load_file(shared_data / "models" / "cifar10_resnet20.safetensors")
    saved = {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}, "best_prec1": 91.73}
    torch.save(saved, folder / "resnet20-12fca82f.th")
    return folder


@pytest.fixture(scope="session")
def s3_environment(made_up: Path) -> Iterator[dict[str, str]]:
    """Settings of a real S3 server with s3://my-bucket/imagenet-parquet."""
    with serve_s3() as server:
        server.upload(made_up / "imagenet-parquet", "my-bucket/imagenet-parquet")
        yield server.environment


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Job:
    """Runs a job as `python jobs/...` does, but in this process, which has imported torch and Ray already."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("inq_ray.cli.program.leave", sys.exit)

    def run(words: list[str], folder: Path) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPO / words[0]), run_name="__main__")
        out, err = capsys.readouterr()
        assert ended.value.code in (0, None), f"{' '.join(words)} ended with {ended.value.code}:\n{out}\n{err}"
        return out

    return run


def _run_on_made_up(job: Job, words: list[str], folder: Path) -> None:
    """Run a job on made-up data: the one that makes Parquet really does, into a folder of its own."""
    makes = words[0] == "jobs/make_parquet.py"
    if makes:
        alone = folder / "alone"
        shutil.rmtree(alone, ignore_errors=True)
        alone.mkdir()
        (alone / "imagenet").symlink_to(folder / "imagenet")
        folder = alone
    # The plan times a step: a small one does.
    job([*words, *(["--overwrite"] if makes else ["--dry-run", "--batch-size", "4", "--crop-size", "32"])], folder)


@pytest.mark.parametrize(("block", "words"), list(_distinct_commands()))
def test_command_exists(
    block: Block, words: list[str], job: Job, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    _skip_if_left_out(block)
    if words[:3] == ["ray", "job", "submit"] and "--" in words:
        words = words[words.index("--") + 1 :]
    if words[0] == "inq-ray":
        assert words[1] in COMMANDS, f"there is no command inq-ray {words[1]}"
        words = ["python", f"jobs/{_JOBS[words[1]]}.py", *words[2:]]
    name = Path(words[0]).name
    if name == "make":
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert set(targets) <= _make_targets(), f"the Makefile has no {set(targets) - _make_targets()}"
    elif name in ("python", "python3") and any(map(_MADE_UP.fullmatch, words)):
        if any(word.startswith("s3://") for word in words):
            for variable, value in request.getfixturevalue("s3_environment").items():
                monkeypatch.setenv(variable, value)
        _run_on_made_up(job, words[1:], request.getfixturevalue("made_up"))
    elif name in ("python", "python3") and words[1].startswith("jobs/"):
        if "../shared/data" in " ".join(words) and not (REPO.parent / "shared" / "data").is_dir():
            pytest.skip("no ../shared/data beside the checkout")
        folder = request.getfixturevalue("public") if set(words) & {*_PUBLIC} else REPO
        job([*words[1:], *({"--dry-run"} - {*words})], folder)
    elif words[0].startswith((".ci/", "./.ci/")):
        assert (REPO / words[0]).stat().st_mode & 0o111
    else:
        known = {" ".join([name, *words[1:count]]) for count in (1, 2, 3)} & _FOREIGN
        assert known, "tests/test_docs.py does not know this command"


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("README.md", ["quantize_imagenet", "benchmark_cluster"]),
        ("docs/clusters.md", ["quantize_imagenet", "benchmark_cluster"]),
        ("docs/data.md", ["quantize_imagenet", "make_parquet"]),
        ("docs/flags.md", ["quantize_imagenet", "sweep_schedules"]),
        ("docs/hardware.md", ["quantize_imagenet"]),
        ("docs/imagenet.md", ["quantize_imagenet"]),
        ("docs/performance.md", ["quantize_imagenet", "benchmark_cluster"]),
        ("docs/recovery.md", ["quantize_imagenet"]),
        ("docs/sweeps.md", ["quantize_imagenet", "sweep_schedules"]),
    ],
)
def test_flags_that_are_described_exist(name: str, jobs: list[str], job: Job) -> None:
    texts = [job([f"jobs/{each}.py", "--help-all"], REPO) for each in jobs]
    known = set(re.findall(r"--[a-z][a-z0-9-]*", " ".join(texts)))
    of_inq_pytorch = {"--pretrained", "--quantize"}  # stand for others, and are not in the help
    assert Document.read(REPO / name).flags() <= known | {"--help-all"} | of_inq_pytorch


def test_nothing_names_a_place_that_only_one_machine_has() -> None:
    if shutil.which("git") is None or not (REPO / ".git").exists():
        pytest.skip("not a git checkout: which files are the project's is not known")
    listing = _run(["git", "ls-files", "-z", "--cached"], cwd=REPO, env=None)
    # Put together here, so that this file does not hold what it looks for.
    places = [r"(?<![\w./-])/" + r"work(?!\w)", r"(?<![\w./-])/(?:root|home)" + r"/\w"]
    hosts = [
        r"pypi\." + "org",
        r"pythonhosted\." + "org",
        r"download\.pytorch\." + "org",
        "index-" + "url",
        "find-" + "links",
    ]
    forbidden = re.compile("|".join(places + hosts))
    found = []
    for name in listing.split("\0")[:-1]:
        path = REPO / name
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            lines = data.decode().splitlines()
            found += [
                f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if forbidden.search(line)
            ]
    assert found == []


def _skip_if_left_out(block: Block) -> None:
    if block.not_run:
        pytest.skip(f"the document says: {block.not_run}")


@cache
def _make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z-]*):", (REPO / "Makefile").read_text(), re.MULTILINE))


def _run(command: list[str], *, cwd: Path, env: dict[str, str] | None) -> str:
    result = subprocess.run(command, check=False, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, (
        f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
    )
    return result.stdout
