"""setup.cfg, both requirements files, constraints.txt, the imports of the code and what is installed: do they agree?"""

import ast
import configparser
import functools
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")

USED_WITHOUT_IMPORT = {
    "mypy": "checks types, in make lint",
    "pandas-stubs": "types of pandas, for mypy",
    "types-pyyaml": "types of PyYAML, for mypy",
    "httpx2": "Starlette's TestClient asks with it",
    "tensorboard": "Lightning's TensorBoardLogger writes with it; people look at runs with it",
    "flask": "moto's server is made of it",
    "flask-cors": "moto's server is made of it",
    "furo": "make docs",
    "myst-parser": "make docs",
    "sphinx": "make docs",
    "sphinxcontrib-mermaid": "make docs",
    "import-linter": "make lint",
    "ipykernel": "the notebook runs in it",
    "pytest-timeout": "its marker",
    "pytest-xdist": "the Makefile's -n",
    "python-multipart": "Starlette reads uploaded forms with it",
    "ruff": "make lint",
}
OPTIONAL_PEERS = {
    "supervision": "results become its detections where somebody has installed it",
}

UNSAFE = [
    ("lightning", "2.6.2", "malicious upload, GHSA-w37p-236h-pfx3"),
    ("lightning", "2.6.3", "malicious upload, GHSA-w37p-236h-pfx3"),
    ("lightning", "2.6.5", "runs code named by a checkpoint's hyperparameters; 2.6.6 does not"),
    ("pydicom", "3.0.1", "CVE-2026-32711, DICOMDIR leads out of its folder"),
    ("torch", "2.9.1", "CVE-2026-24747, weights_only runs code"),
    ("torch", "2.10.0", "CVE-2026-4538, code in a .pt2 file"),
    ("pillow", "12.3.0", "CVE-2026-112403, in the decoder of JPEG files"),
    ("ray", "2.55.0", "CVE-2026-57516"),
    ("onnx", "1.21.0", "a foreign model writes outside of its folder"),
    ("onnxruntime", "1.30.0", "writes beyond buffers, in Loop, Scan and where buffers are used again"),
    ("opencv-python-headless", "4.11.0.86", "CVE-2025-53644, heap overflow by a JPEG 2000 file"),
    ("python-gdcm", "3.0.24", "CVE-2025-53618, reads beyond a JPEG codestream"),
    ("tensorboard", "2.20.0", "breaks with current setuptools"),
    ("albumentations", "2.0.9", "2.0.8 was the last one under the MIT licence"),
]

LGPL = {"pebble"}
MIXED_LICENCES = {"docutils": "of make docs: public domain and BSD; only its mode for an editor is under the GPL"}
NO_LICENCE_IN_METADATA = {"cuda-toolkit": "an empty package that names NVIDIA's others"}


@functools.cache
def declared() -> dict[str, dict[str, Requirement]]:
    """ "install" and each extra → canonical name → requirement."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    groups = {"install": config["options"]["install_requires"], **config["options.extras_require"]}
    return {
        group: {
            canonicalize_name(requirement.name): requirement
            for requirement in map(Requirement, filter(None, map(str.strip, text.splitlines())))
        }
        for group, text in groups.items()
    }


def everything_declared() -> dict[str, Requirement]:
    return {name: requirement for group in declared().values() for name, requirement in group.items()}


def pins(*files: str | Path) -> dict[str, str]:
    """Canonical name → version of the `name==version` lines of files beside setup.cfg."""
    lines = (line.partition("#")[0].strip() for file in files for line in (ROOT / file).read_text().splitlines())
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


@functools.cache
def imports(folder: str) -> list[tuple[str, Path, bool]]:
    """(module, file, whether only a function or a type checker imports it) of every import under a folder.

    `from a import b` gives a and a.b, which may be a module too.
    """

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((name, inside) for alias in node.names for name in (node.module, f"{node.module}.{alias.name}"))
        is_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside or is_later)

    found = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(file.read_bytes())
        found += [(module, file.relative_to(ROOT), inside) for module, inside in walk(tree, False)]
    return found


def foreign_imports(folder: str) -> Iterator[tuple[str, Path, bool]]:
    """(top-level module, file, whether only inside a function) of what is neither Python's nor ours."""
    ours = {"xray", "tools", "benchmarks"} | (
        {file.stem for file in (ROOT / "tests").rglob("*.py")} if folder == "tests" else set()
    )
    for module, file, inside in imports(folder):
        top = module.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ours:
            yield top, file, inside


@functools.cache
def distributions_of_modules() -> dict[str, set[str]]:
    found = importlib.metadata.packages_distributions()
    return {module: set(map(canonicalize_name, names)) for module, names in found.items()}


def distributions(folder: str) -> set[str]:
    """Canonical names of the distributions that the code under a folder imports."""
    return {name for module, _, _ in foreign_imports(folder) for name in distributions_of_modules().get(module, ())}


def come_along(roots: dict[str, Requirement]) -> set[str]:
    """Canonical names of all that is installed for these requirements, they themselves among it."""
    found: set[tuple[str, str]] = set()
    waiting = [(name, extra) for name, requirement in roots.items() for extra in ("", *requirement.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, extra) for extra in ("", *requirement.extras)]
    return {name for name, _ in found}


@functools.cache
def licence(name: str) -> str:
    """What a distribution's metadata say: an SPDX expression, classifiers, or the first line of a text."""
    metadata = importlib.metadata.metadata(name)
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [
        text.rpartition("::")[2].strip()
        for text in metadata.get_all("Classifier") or ()
        if text.startswith("License ::") and text.strip() != "License :: OSI Approved"
    ]
    return "; ".join(classifiers) or (metadata.get("License") or "").strip().partition("\n")[0]


def made_by_make() -> Path:
    """The environment, where the Makefile has made it from the files that are tested here; others are their owner's."""
    if not Path(sys.prefix, "installed").is_file():
        pytest.skip("not an environment of the Makefile: its versions are its owner's choice")
    return Path(sys.prefix)


def installed_unlike(wanted: dict[str, str]) -> dict[str, tuple[str, str]]:
    """name → (wanted, installed) where they differ; a local build tag (+cpu) does not count."""
    found = {name: importlib.metadata.version(name) for name in wanted}
    return {
        name: (version, found[name])
        for name, version in wanted.items()
        if not SpecifierSet(f"=={version}").contains(found[name], prereleases=True)
    }


def test_the_versions_installed_are_those_that_the_suite_is_to_run_with():
    lowest = made_by_make() / "lowest.txt"
    if lowest.is_file():
        assert installed_unlike(pins(lowest)) == {}
        return
    assert installed_unlike(pins(*REQUIREMENTS)) == {}
    present = {canonicalize_name(found.name) for found in importlib.metadata.distributions()}
    along = {name: version for name, version in pins("constraints.txt").items() if name in present}
    assert installed_unlike(along) == {}


@pytest.fixture
def lowest() -> Any:
    """scripts/lowest.py."""
    spec = importlib.util.spec_from_file_location("lowest", ROOT / "scripts/lowest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lowest_versions_are_the_floors_of_setup_cfg(lowest):
    found = lowest.floors((ROOT / "setup.cfg").read_text())
    floors = {canonicalize_name(name): version for name, version in found.items()}
    assert floors.keys() == everything_declared().keys()
    for name, requirement in everything_declared().items():
        assert requirement.specifier.contains(floors[name]), requirement
    text = "[options]\ninstall_requires =\n    {}\n[options.extras_require]\ndev =\n    b==2\n"
    for line in ("a", "a<3", "a!=1,>=2", "a~=1.0", "a>1"):
        with pytest.raises(ValueError, match=r"names no lowest version"):
            lowest.floors(text.format(line))
    found = lowest.floors(text.format("a-b.c>=1.2.3.4, !=1.3,<2"))
    assert found == {"a-b.c": "1.2.3.4", "b": "2"}


def test_what_is_kept_stays_at_its_pin(lowest, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["lowest.py", "--keep", "torch"])
    assert lowest.main() == 0
    file = tmp_path / "lowest.txt"
    file.write_text(capsys.readouterr().out)
    floors, pinned = lowest.floors((ROOT / "setup.cfg").read_text()), pins(*REQUIREMENTS)
    expected = {canonicalize_name(name): version for name, version in floors.items()} | {"torch": pinned["torch"]}
    assert pins(file) == expected
    monkeypatch.setattr("sys.argv", ["lowest.py", "--keep", "torch", "setuptools"])
    with pytest.raises(SystemExit):
        lowest.main()
    assert "--keep setuptools: no direct dependency" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["xray", "tools", "benchmarks"])
def test_every_import_is_declared(folder):
    wrong = []
    # Benchmarks run in a checkout, where what tests need is installed.
    groups = [group for group in declared() if group != "dev" or folder == "benchmarks"]
    allowed = {name for group in groups for name in declared()[group]}
    for module, file, inside in foreign_imports(folder):
        if module in OPTIONAL_PEERS:
            if not inside:
                wrong.append(f"{file} imports {module} before anyone asked for it")
        elif not distributions_of_modules().get(module, set()) & allowed:
            wrong.append(f"{file} imports {module}, which setup.cfg does not declare")
    assert wrong == []


def test_what_needs_an_extra_is_imported_on_demand():
    extras = set(everything_declared()) - set(declared()["install"])
    needs = {
        ".".join(file.with_suffix("").parts)
        for folder in ("xray", "tools", "benchmarks")
        for module, file, inside in foreign_imports(folder)
        if not inside and distributions_of_modules().get(module, {"?"}) <= extras
    }
    early = {
        (module, str(file))
        for folder in ("xray", "tools", "benchmarks")
        for module, file, inside in imports(folder)
        if not inside and module in needs and ".".join(file.with_suffix("").parts) not in needs
    }
    assert early == set()


def test_every_import_of_the_tests_is_declared():
    allowed = set(everything_declared())
    wrong = {
        (module, str(file))
        for module, file, _ in foreign_imports("tests")
        if not distributions_of_modules().get(module, set()) & allowed and module not in OPTIONAL_PEERS
    }
    assert wrong == set()


def test_every_declared_dependency_is_used():
    product = distributions("xray") | distributions("tools") | distributions("benchmarks")
    for group, names in declared().items():
        used = product if group != "dev" else product | distributions("tests")
        idle = set(names) - used - set(USED_WITHOUT_IMPORT)
        assert idle == set(), f"{group}: nothing imports {', '.join(sorted(idle))}"


def test_no_exception_outlives_its_reason():
    assert set(USED_WITHOUT_IMPORT) <= set(everything_declared())
    assert not set(USED_WITHOUT_IMPORT) & (distributions("xray") | distributions("tools") | distributions("benchmarks"))
    assert not set(OPTIONAL_PEERS) & set(everything_declared())
    assert set(OPTIONAL_PEERS) <= {
        module for folder in ("xray", "tools", "benchmarks") for module, _, _ in foreign_imports(folder)
    }


def test_requirements_pin_every_declared_dependency_and_nothing_else():
    pinned = pins(*REQUIREMENTS)
    assert pinned.keys() == everything_declared().keys()
    assert pins("requirements.txt").keys() == declared()["install"].keys()
    for name, requirement in everything_declared().items():
        assert requirement.specifier.contains(pinned[name]), f"{name}=={pinned[name]} is outside {requirement}"
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert lines[-1] == "-e ."
    rest = [line for line in lines[:-1] if "==" not in line and not line.startswith("#")]
    assert rest == ["-c constraints.txt"]
    rest = [line for line in (ROOT / "requirements-dev.txt").read_text().splitlines() if "==" not in line]
    assert [line for line in rest if not line.startswith("#")] == ["-r requirements.txt"]
    assert (pinned["torch"], pinned["torchvision"]) == ("2.14.1", "0.29.1")


def test_constraints_pin_all_that_comes_along():
    assert not pins("constraints.txt").keys() & pins(*REQUIREMENTS).keys()
    if Path(made_by_make(), "lowest.txt").is_file():
        pytest.skip("old versions bring others along")
    along = {name for name in come_along(everything_declared()) if not name.startswith(("cuda-", "nvidia-", "triton"))}
    along -= pins(*REQUIREMENTS).keys()
    assert along <= pins("constraints.txt").keys()
    if sys.platform == "linux":  # where they were resolved; elsewhere some are not needed
        assert pins("constraints.txt").keys() <= along


@pytest.mark.parametrize("file", [*REQUIREMENTS, "constraints.txt", "setup.cfg", "Makefile"])
def test_no_place_to_download_from_is_named(file):
    text = (ROOT / file).read_text()
    assert not re.search(r"https?://|--hash|index-url|find-links|--trusted-host", text)


@pytest.mark.parametrize(("name", "version", "why"), UNSAFE)
def test_unsafe_versions_are_excluded(name, version, why):
    assert not everything_declared()[name].specifier.contains(version), why


@pytest.mark.parametrize("group", sorted(declared()))
def test_licences(group):
    """No GPL, no AGPL; LGPL only where SECURITY.md says so."""
    for name in come_along({**declared()["install"], **declared()[group]}):
        text = licence(name)
        if group == "dev" and name in MIXED_LICENCES:
            continue
        if not text:
            assert name in NO_LICENCE_IN_METADATA, f"{name} names no licence"
            continue
        # The runtime libraries of GCC may be linked to anything.
        text = re.sub(r"GPL-3\.0(-or-later)?[ -]with[ -]GCC-exception(-3\.1)?", "", text, flags=re.IGNORECASE)
        lesser = re.search(r"LGPL|Lesser General Public|Library or Lesser", text)
        assert bool(lesser) == (name in LGPL), f"{name}: {text}"
        rest = re.sub(r"LGPL[\w.+-]*|Lesser General Public License|GNU Library or Lesser General Public", "", text)
        assert not re.search(r"GPL|General Public|Affero", rest), f"{name}: {text}"


def test_the_security_policy_is_up_to_date():
    from xray.radiographs import canvas, decoding, dicom, radiograph

    text = " ".join((ROOT / "SECURITY.md").read_text().split())
    for name in LGPL:
        assert f"**{name}** is LGPL" in text
    for limit in (
        f"time limit ({decoding.TIMEOUT:g} s)",
        f"memory limit ({decoding.MEMORY_LIMIT >> 20} MiB",
        f"{canvas.MAX_PIXELS // 10**6} million pixels",
        f"{radiograph.MAX_FILE_BYTES >> 20} MiB of file",
        f"{dicom.MAX_HEADER_BYTES >> 20} MiB of header",
        f"{dicom.MAX_INFLATED_BYTES >> 20} MiB of a deflated data set",
    ):
        assert limit in text
    makefile = (ROOT / "Makefile").read_text()
    accepted = re.search(r"^ACCEPTED :=(.*)$", makefile, re.MULTILINE)[1].split()
    assert [name for name in accepted if name not in text] == []
