"""Which files of the checkout are pages of the site, and how links between them read there: a hook of MkDocs.

Pages are Markdown as a host of repositories shows it. A link to a page, or to a picture in docs/, leads there on the
site as well; a link to any other file of the checkout, such as a module, is left as its text.
"""

import ast
import base64
import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]

# Pages that are not in docs/, and the files that they are made of.
OUTSIDE = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "docker.md": "docker/README.md",
    "policy.md": "SECURITY.md",
}
EXAMPLES = "examples.md"
NOTEBOOK = "examples/digits.ipynb"
REFERENCE = "reference.md"

# The order of pages; those that do not exist are left out, those that are missing here come last.
NAV: dict[str, dict[str, str]] = {
    "": {"Home": "index.md"},
    "Guides": {
        "Your data": "data.md",
        "ImageNet": "imagenet.md",
        "Flags": "flags.md",
        "Your own training loop": "library.md",
        "Bits by layer": "layer_bits.md",
        "Hardware": "hardware.md",
        "Sweeps": "sweeps.md",
        "Reports": "report.md",
        "Frameworks": "frameworks.md",
        "Result files": "format.md",
        "Export": "export.md",
        "Clusters": "clusters.md",
        "Image and manifests": "docker.md",
        "Recovery": "recovery.md",
        "Metrics": "metrics.md",
        "Performance": "performance.md",
        "Security": "security.md",
    },
    "Results": {"Results": "results/README.md", "What was tried": "results/choices/README.md"},
    "Examples": {"Scripts": EXAMPLES, "Notebook": "digits.md"},
    "Reference": {"Library": REFERENCE, "Architecture": "architecture.md"},
    "Project": {"Changelog": "changelog.md", "Contributing": "contributing.md", "Security policy": "policy.md"},
}

_FENCED = re.compile(r"(^```+.*?^```+[ \t]*$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?P<target>[^)\s]+)\)")
_ATTRIBUTE = re.compile(r'(?P<name>\b(?:src|srcset|href)=")(?P<target>[^"]+)(?=")')


def slug(heading: str, separator: str) -> str:
    """Return the anchor of a heading, as hosts of repositories name it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the anchors of headings."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and list the pages that there are."""
    for uri, source in OUTSIDE.items():
        if (ROOT / source).exists():
            files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    files.append(File.generated(config, REFERENCE, content=_reference()))
    if (ROOT / "examples").is_dir():
        files.append(File.generated(config, EXAMPLES, content=_examples()))
    if (ROOT / NOTEBOOK).exists():
        for uri, content in _notebook().items():
            files.append(File.generated(config, uri, content=content))
    known = {file.src_uri for file in files.documentation_pages()}
    parts: list[Any] = []
    for section, pages in NAV.items():
        there = [{title: uri} for title, uri in pages.items() if uri in known]
        parts += there if not section else [{section: there}] if there else []
    missing = sorted(known - {uri for pages in NAV.values() for uri in pages.values()})
    config.nav = [*parts, *({PurePosixPath(uri).stem.capitalize(): uri} for uri in missing)]
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Lead links to where things are on the site."""
    uri = page.file.src_uri
    here = OUTSIDE.get(uri, f"examples/{uri}" if uri in (EXAMPLES, "digits.md") else f"docs/{uri}")
    known = {file.src_uri for file in files if not file.inclusion.is_excluded()}

    def moved(target: str) -> str | None:
        """Return the target on the site; None = it is not on it."""
        if re.match(r"[a-z]+:|#", target):
            return target
        path, _, anchor = target.partition("#")
        found = _on_site(os.path.normpath(PurePosixPath(here).parent / path))
        if found not in known:
            return None
        return os.path.relpath(found, PurePosixPath(uri).parent) + (f"#{anchor}" if anchor else "")

    def link(match: re.Match[str]) -> str:
        text = _LINK.sub(link, match["text"])  # a picture may be a link
        target = moved(match["target"])
        return text if target is None else f"{match['image']}[{text}]({target})"

    def attribute(match: re.Match[str]) -> str:
        return match["name"] + (moved(match["target"]) or "#")

    parts = _FENCED.split(markdown)
    parts[::2] = [_ATTRIBUTE.sub(attribute, _LINK.sub(link, part)) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out the roles of Sphinx in docstrings."""
    return re.sub(r":(?:attr|class|func|meth|mod):(?=<code>)", "", html)


def _on_site(source: str) -> str:
    """Return where a file or folder of the checkout is on the site, if it is."""
    for uri, outside in OUTSIDE.items():
        if source in (outside, str(PurePosixPath(outside).parent)) and source != ".":
            return uri
    if source == NOTEBOOK:
        return "digits.md"
    if source.partition("/")[0] == "examples":
        return EXAMPLES
    below = source.removeprefix("docs/")
    return f"{below}/README.md" if (ROOT / source).is_dir() else below if below != source else ""


def _reference() -> str:
    """Return the page of what `inq_ray` exports, in the order of its docstring."""
    docstring = ast.get_docstring(ast.parse((ROOT / "inq_ray" / "__init__.py").read_text())) or ""
    lines = re.findall(r"^    (\w+(?:, \w+)*) +\S", docstring, re.MULTILINE)
    entries = "\n\n".join(f"::: inq_ray.{name}" for line in lines for name in line.split(", "))
    return (
        f"# Library\n\nWhat you use in your own training loop. It needs torch and safetensors, not Ray.\n\n{entries}\n"
    )


def _examples() -> str:
    """Return the page of scripts: what each says of itself, and its code."""
    parts = ["# Examples\n\nEach script runs as it is. The notebook [digits](digits.ipynb) shows pictures."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        source = path.read_text()
        docstring = ast.get_docstring(ast.parse(source)) or ""
        code = source.split('"""', 2)[2].strip()
        parts.append(f"## {path.name}\n\n{docstring}\n\n```python\n{code}\n```")
    return "\n\n".join(parts) + "\n"


def _notebook() -> dict[str, str | bytes]:
    """Return the notebook as a page, and its pictures."""
    made: dict[str, str | bytes] = {}
    parts = []
    for cell in json.loads((ROOT / NOTEBOOK).read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                uri = f"images/digits-{len(made)}.png"
                made[uri] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![{''.join(data['text/plain'])}](../docs/{uri})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return {**made, "digits.md": "\n\n".join(parts) + "\n"}
