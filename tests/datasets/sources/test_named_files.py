"""Which file a table means, however it spells its name."""

import pytest

from xray.datasets.sources.named_files import NamedFiles, Resolved, resolve_ids, without_copies


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("a", ["x/a.png"]),
        ("a.png", ["x/a.png"]),
        ("x/a", ["x/a.png"]),
        # Paths of its own.
        ("elsewhere/a.jpg", ["x/a.png"]),
        ("x/a.png", ["x/a.png"]),
        ("./x\\a.png", ["x/a.png"]),
        # Another edition's suffix.
        ("a.dcm", ["x/a.png"]),
        ("b", ["b.dcm", "b.png"]),
        ("b.png", ["b.png"]),
        ("b.jpg", ["b.dcm", "b.png"]),
        ("007", ["007.png"]),
        ("7", ["007.png"]),
        (" 7.0 ", ["007.png"]),
        ("12", ["12.png"]),
        ("12.0", ["012.png", "12.png"]),
        ("1.2.840", ["1.2.840.dcm"]),
        ("1.2.84", []),
        ("", []),
        ("c", ["y/c.png", "z/c.png"]),
        ("y/c", ["y/c.png"]),
    ],
)
def test_what_a_table_may_call_a_file(said, names):
    files = NamedFiles(
        ["x/a.png", "b.png", "b.dcm", "007.png", "12.png", "012.png", "1.2.840.dcm", "y/c.png", "z/c.png"]
    )
    assert files.meant_by(said) == names


def test_ids_of_a_table():
    files = NamedFiles(["a.png", "7.png", "b.png", "b.dcm"])
    assert resolve_ids(["a", "a.png", "7.0", "9.0", "x"], files) == Resolved(
        {"a": "a", "a.png": "a", "7.0": "7", "9.0": "9", "x": "x"}, {"a": "a.png", "7": "7.png"}, {}
    )
    # One row of b.png, and one of either.
    found = resolve_ids(["b.png", "b"], files)
    assert found.names == {}
    assert found.unclear == dict.fromkeys(["b", "b.png", "b.dcm"], "b may be b.dcm or b.png")


def test_ids_without_files():
    assert resolve_ids(["7.0", "7", "08", "9.0", "a"], None) == Resolved(
        {"7.0": "7", "7": "7", "08": "08", "9.0": "9", "a": "a"}, {}, {}
    )
    assert set(resolve_ids(["7", "07", "7.0"], None).unclear) == {"7", "07"}


def test_copies(tmp_path):
    paths = {}
    for name, content in {"x/a.png": "1", "y/a.png": "1", "a.dcm": "2", "b.png": "1", "c.png": "3"}.items():
        paths[name] = tmp_path / name
        paths[name].parent.mkdir(exist_ok=True)
        paths[name].write_text(content)
    # One that cannot be read is nobody's copy.
    paths["z/c.png"] = tmp_path / "none"
    dropped = []
    assert sorted(without_copies(paths, dropped)) == ["a.dcm", "b.png", "c.png", "x/a.png", "z/c.png"]
    assert [(drop.where, drop.reason, drop.detail) for drop in dropped] == [
        ("y/a.png", "second copy of a file", "the same as x/a.png")
    ]
