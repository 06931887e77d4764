"""The site of docs/: `make docs` builds it into docs/_build, and fails on a warning."""

import inspect
import itertools
import re
from typing import Any

import xray

project = "xray"
author = "the founders of xray"
release = version = xray.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
html_theme = "furo"
html_title = f"xray {version}"
exclude_patterns = ["_build"]
# Docstrings are plain text, in which `name` is code.
default_role = "code"
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
# A notebook's cells and a shell's output are no Python.
suppress_warnings = ["misc.highlighting_failure"]

PARAMETER = re.compile(r"(?:^|(?<=[.;] )|(?<=\n))(\w+(?:, \w+)*): ")
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def parameters_as_fields(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings explain parameters as "name: text", which Sphinx shows as a list once it reads ":param name: text"."""
    try:
        known = set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return
    paragraphs = []
    for paragraph in "\n".join(lines).split("\n\n"):
        starts = [at for at in PARAMETER.finditer(paragraph) if known.issuperset(at[1].split(", "))]
        if not starts:
            paragraphs.append(paragraph)
            continue
        before = paragraph[: starts[0].start()].strip()
        fields = []
        for start, following in itertools.zip_longest(starts, starts[1:]):
            text = " ".join(paragraph[start.end() : following.start() if following else None].split())
            fields += [f":param {each}: {text}" for each in start[1].split(", ")]
        paragraphs += [before, "\n".join(fields)]
    lines[:] = "\n\n".join(paragraphs).split("\n")


def without_links_to_the_repository(app: Any, page: str, source: list[str]) -> None:
    """On GitHub the pages also link to files outside docs/, which the site does not have."""
    source[0] = OUTSIDE.sub(r"\1", source[0])


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", parameters_as_fields)
    app.connect("source-read", without_links_to_the_repository)
