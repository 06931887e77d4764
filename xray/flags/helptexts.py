"""What --help says of each flag: the text under its field, as paragraphs that are wrapped to the terminal alone.

tyro 1.0 looks for the line breaks of a source file before it takes their indentation away, so that it finds none, and
keeps all but those that happen to fit: sentences then break where the file's lines do.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import shutil
import textwrap
import typing
from typing import Annotated, Any

import tyro


def with_helptexts(config_type: Any) -> None:
    """Gives the fields of a dataclass, or of those in a union, their texts with whole paragraphs in one line.

    Called where help is asked for; nothing else reads these texts.
    """
    for part in typing.get_args(config_type):
        with_helptexts(part)
    if not (isinstance(config_type, type) and dataclasses.is_dataclass(config_type)):
        return
    for cls in config_type.__mro__:
        kinds = vars(cls).get("__annotations__", {})
        for name, text in helptexts(cls).items() if dataclasses.is_dataclass(cls) else ():
            kinds[name] = Annotated[kinds[name], tyro.conf.arg(help=text)]


def description_of(text: str) -> str:
    """What a command says of itself, wrapped to the terminal, which tyro does not do.

    It joins lines that begin with a letter, so those after a paragraph's first are indented.
    """
    width = shutil.get_terminal_size().columns
    paragraphs = (" ".join(one.split()) for one in re.split(r"\n\s*\n", text.strip()))
    options: Any = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
    return "\n\n".join(textwrap.fill(one, width, **options) for one in paragraphs)


def helptexts(cls: type) -> dict[str, str]:
    """Field → the text under it, of a dataclass's own fields; none where its source cannot be read."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    texts = {}
    for field, below in itertools.pairwise(getattr(definition, "body", ())):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if is_field and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            paragraphs = re.split(r"\n\s*\n", str(below.value.value))
            texts[field.target.id] = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return texts
