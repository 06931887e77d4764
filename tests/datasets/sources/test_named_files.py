"""Which file a table means, however it spells its name."""

import pytest

from xray.datasets.sources.named_files import NamedFiles, PathEnds, Resolved, resolve_ids, without_copies


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


def test_paths_that_end_as_files_in_further_folders_do():
    texts = ["../../data/chexpert/train/p1/s1/frontal.jpg", "../../data/chexpert/train/p2/s1/frontal.jpg"]
    files = NamedFiles(["images/train/p1/s1/frontal.png", "images/train/p2/s2/frontal.png", "images/x.png"])
    ends = PathEnds(files, texts)
    # Whatever the suffix; s1 of p2 is not there, and s2 is another study.
    assert [ends.meant_by(text) for text in texts] == [["images/train/p1/s1/frontal.png"], []]
    # Of two that end so nobody knows which is meant, and a folder of another split is none.
    files = NamedFiles(["a/p1/s1/1.png", "b/p1/s1/1.png", "test/p3/1.png"])
    texts = ["/data/p1/s1/1.png", "/data/train/p3/1.png"]
    ends = PathEnds(files, texts)
    assert [ends.meant_by(text) for text in texts] == [["a/p1/s1/1.png", "b/p1/s1/1.png"], []]
    # What two names end with says nothing of either.
    texts = ["/data/setA/p1/1.png", "/data/setB/p1/1.png"]
    ends = PathEnds(NamedFiles(["x/p1/1.png"]), texts)
    assert [ends.meant_by(text) for text in texts] == [[], []]


def test_as_many_files_of_one_name_as_patients_take_no_square_of_the_time():
    n = 3000
    files = NamedFiles([f"set/p{number}/study1/view1_frontal.jpg" for number in range(n)])
    texts = [f"/data/train/p{number}/study1/view1_frontal.jpg" for number in range(2 * n)]
    found = PathEnds(files, texts)
    looked_at = found._elsewhere._found
    assert sum(len(found.meant_by(text)) for text in texts) == n
    assert len(looked_at) < 4 * n  # each end once, and not each file for each name
