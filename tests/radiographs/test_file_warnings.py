"""What a run has to say, once at its end."""

from xray.radiographs.file_warnings import FileWarning, print_warnings, summary_of

WARNINGS = [
    FileWarning("one grey", "a.dcm"),
    FileWarning("listed twice", "b.dcm", "1, 2"),
    FileWarning("one grey", "c.dcm"),
]


def test_a_line_for_each_kind_with_a_count_and_the_first():
    assert summary_of(WARNINGS) == ["2 × one grey (first: a.dcm)", "1 × listed twice (b.dcm: 1, 2)"]
    assert summary_of([]) == []


def test_a_name_cannot_pass_for_a_line_or_command_a_terminal():
    warning = FileWarning("one grey", "a\nerror: b.dcm", "\x1b[2J\u2028")
    assert summary_of([warning]) == ["1 × one grey (a\\nerror: b.dcm: \\x1b[2J\\u2028)"]


def test_they_are_told_on_stderr_and_where_all_stand(capsys):
    print_warnings(WARNINGS, "warnings.csv")
    assert capsys.readouterr() == (
        "",
        "warning: 2 × one grey (first: a.dcm)\nwarning: 1 × listed twice (b.dcm: 1, 2)\nwarnings: warnings.csv\n",
    )
    print_warnings([], "warnings.csv")
    assert capsys.readouterr() == ("", "")
