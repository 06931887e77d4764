"""What --help says of each flag: the text under its field, as paragraphs that are wrapped to the terminal alone.

tyro 1.0 joins the lines of a text that begin with a letter, but looks for these before it takes the indentation of the
source file away: it finds none, and sentences break where the file's lines do (findings/tyro-keeps-….sh).
"""

import ast
import contextlib
import inspect
import itertools
import os
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import tyro

LEAST_COLUMNS = 40
"""Of a terminal, for what is printed of flags: in fewer, tyro does not come to an end (1 to 20 columns)."""


@contextlib.contextmanager
def wide_enough() -> Iterator[None]:
    """Meanwhile the terminal has at least LEAST_COLUMNS for who asks, as every library does, what COLUMNS says."""
    before = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns >= LEAST_COLUMNS:
        yield
        return
    os.environ["COLUMNS"] = str(LEAST_COLUMNS)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


@contextlib.contextmanager
def with_helptexts(config_type: Any) -> Iterator[None]:
    """Meanwhile the fields of a dataclass, or of those in a union, have their texts with a paragraph in one line."""
    with contextlib.ExitStack() as stack:
        for part in typing.get_args(config_type):
            stack.enter_context(with_helptexts(part))
        classes: tuple[type, ...] = config_type.__mro__ if isinstance(config_type, type) else ()
        for cls in classes:
            if "__dataclass_fields__" in vars(cls) and (texts := helptexts(cls)):
                kinds = cls.__annotations__
                stack.callback(kinds.update, dict(kinds))
                kinds.update({name: Annotated[kinds[name], tyro.conf.arg(help=text)] for name, text in texts.items()})
        yield


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
