"""The Dockerfile and the shell scripts beside it, looked at by the tools made for that; what a build gets to see."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

DOCKER = REPO / "docker"
SCRIPTS = ["image-test", "install", "make-certificates", "make-image", "make-secrets", "slurm/inq_ray.sbatch"]
_TOOLS = Path(sys.executable).parent


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, timeout=300, cwd=REPO)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    assert (DOCKER / name).stat().st_mode & 0o111
    result = _run(_TOOLS / "shellcheck", DOCKER / name)
    assert result.returncode == 0, result.stdout


def test_shellcheck_has_nothing_to_say_of_what_runs_in_the_image() -> None:
    result = _run(_TOOLS / "shellcheck", "--shell=bash", DOCKER / "try-image")
    assert result.returncode == 0, result.stdout


def test_hadolint_has_nothing_to_say() -> None:
    result = _run(_TOOLS / "hadolint", DOCKER / "Dockerfile")
    assert result.returncode == 0, result.stdout


def test_yamllint_has_nothing_to_say() -> None:
    rules = "{extends: relaxed, rules: {line-length: {max: 120}, key-duplicates: enable, empty-lines: {max: 1}}}"
    files = [path for path in DOCKER.rglob("*.yaml") if "secrets" not in path.parts]
    assert files
    result = _run(_TOOLS / "yamllint", "--strict", "-d", rules, *files)
    assert result.returncode == 0, result.stdout


def test_a_build_sees_no_secret_and_nothing_that_is_not_named() -> None:
    lines = [line for line in (REPO / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert all((REPO / name).exists() for name in let_in)
    assert {".git", ".venv", "runs"}.isdisjoint(let_in)
    assert "docker/secrets" in lines[lines.index("!docker") :]


def test_every_package_of_an_image_has_a_hash() -> None:
    for name in ("constraints.txt", "docker/torch-cpu.txt"):
        text = (REPO / name).read_text().replace("\\\n", " ")
        pins = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert pins
        assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("words", "name", "variant"),
    [
        ([], "inq_ray", "cpu"),
        (["VARIANT=cuda"], "inq_ray:cuda", "cuda"),
        (["VARIANT=cuda", "IMAGE=inq_ray:aws"], "inq_ray:aws", "cuda"),
    ],
)
def test_each_image_has_a_name_of_its_own(words: list[str], name: str, variant: str) -> None:
    unset = ["env", *(f"--unset={each}" for each in ("ARGS", "IMAGE", "MAKEFLAGS", "MAKEOVERRIDES", "VARIANT"))]
    printed = _run(*unset, "make", "--dry-run", "--no-print-directory", "image", *words).stdout.split()
    assert printed == ["docker/make-image", f"'{name}'", "--build-arg", f"'VARIANT={variant}'"]


def test_the_image_for_gpus_does_not_take_the_name_of_the_other() -> None:
    result = _run(DOCKER / "make-image", "inq_ray", "--build-arg", "VARIANT=cuda")
    assert result.returncode == 1
    assert "make image VARIANT=cuda" in result.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, which makes the certificates")
@pytest.mark.system
def test_certificates_are_for_the_names_that_were_asked_for(tmp_path: Path) -> None:
    result = _run(DOCKER / "make-certificates", tmp_path / "tls", "127.0.0.2", "head.example")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "tls"
    verified = _run("openssl", "verify", "-CAfile", folder / "ca.crt", folder / "tls.crt")
    assert verified.returncode == 0, verified.stderr
    text = _run("openssl", "x509", "-in", folder / "tls.crt", "-noout", "-text").stdout
    for name in ("IP Address:127.0.0.2", "DNS:head.example", "DNS:localhost", "TLS Web Client Authentication"):
        assert name in text
    assert [path.stat().st_mode & 0o077 for path in folder.iterdir()] == [0] * len(list(folder.iterdir()))
    assert _run(DOCKER / "make-certificates", tmp_path / "tls").returncode == 2
