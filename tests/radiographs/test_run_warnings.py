"""What a run has to say, once at its end."""

from xray.radiographs.run_warnings import RunWarning, summary_of, tell

WARNINGS = [
    RunWarning("one grey", "a.dcm"),
    RunWarning("listed twice", "b.dcm", "1, 2"),
    RunWarning("one grey", "c.dcm"),
]


def test_a_line_for_each_kind_with_a_count_and_the_first():
    assert summary_of(WARNINGS) == ["2 × one grey (first: a.dcm)", "1 × listed twice (b.dcm: 1, 2)"]
    assert summary_of([]) == []


def test_they_are_told_on_stderr_and_where_all_stand(capsys):
    tell(WARNINGS, "warnings.csv")
    assert capsys.readouterr() == (
        "",
        "warning: 2 × one grey (first: a.dcm)\nwarning: 1 × listed twice (b.dcm: 1, 2)\nwarnings: warnings.csv\n",
    )
    tell([], "warnings.csv")
    assert capsys.readouterr() == ("", "")
