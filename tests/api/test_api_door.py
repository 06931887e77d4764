"""`import xray`: what it offers, and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import xray

ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import sys
before = set(sys.modules)
import xray
assert xray.__version__
own = {name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names}
print(sorted(own))
xray.read_radiograph
print(sorted({"torch", "pandas", "matplotlib"} & set(sys.modules)))
xray.open_dataset, xray.Results, xray.evaluate, xray.fuse
print(sorted({"torch", "matplotlib"} & set(sys.modules)))
"""


def test_importing_xray_imports_nothing_else():
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["['xray']", "[]", "[]"]


@pytest.mark.parametrize("name", xray.__all__)
def test_every_name_is_there_and_explained(name):
    assert name in dir(xray)
    found = getattr(xray, name)
    if name != "__version__":
        assert found.__doc__
        assert getattr(xray, name) is found


def test_the_types_are_those_of_the_names():
    """What a type checker is told is what there is at run time."""
    import ast

    tree = ast.parse(Path(xray.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {alias.asname or alias.name: f"{node.module}:{alias.name}" for node in checked.body for alias in node.names}
    assert told == xray._PLACES
    assert set(xray.__all__) == {*told, "__version__"}


def test_other_names_are_errors():
    with pytest.raises(AttributeError, match="module 'xray' has no attribute 'nothing'"):
        _ = xray.nothing
