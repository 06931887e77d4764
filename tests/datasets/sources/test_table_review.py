"""Columns of a review beside the labels: what it has rejected is no finding and no box, and is not absent either."""

import pytest
from source_cases import said, told, write_picture

from xray.datasets.sources.review_words import is_of_passing, is_of_taking, is_taken, state_in
from xray.datasets.sources.table import read_table
from xray.datasets.sources.table_beside import OF_ANSWERS
from xray.datasets.sources.table_review import OF_REVIEW, PENDING_ROWS, REJECTED_ROWS
from xray.datasets.sources.table_rows import BOX_OF_UNCERTAIN, BOX_REJECTED
from xray.errors import InputError


@pytest.fixture
def read(tmp_path):
    for number in range(6):
        write_picture(tmp_path / f"{number}.png", offset=number)

    def reader(header, *lines, **flags):
        (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n")
        return read_table(tmp_path, **flags)

    return reader


def known(source):
    """Id → its labels, what is unknown, and its boxes' left upper corners."""
    return {
        own_id: ("".join(facts["labels"]), "".join(facts["unknown"]), [box[1:3] for box in facts["boxes"]])
        for own_id, facts in told(source).items()
    }


REJECTED = [
    "rejected",
    "Declined",
    "DELETED",
    "removed",
    "false positive",
    "not accepted",
    "invalid",
    "dismissed",
    "FP",
]
PENDING = [
    "pending",
    "To be reviewed",
    "needs review",
    "unconfirmed",
    "in review",
    "unsure",
    "?",
    "TODO",
    "not verified",
]
ACCEPTED = ["confirmed", "Accepted", "approved", "OK", "verified", "valid", "final", "reviewed"]
COLUMNS = ["status", "review", "State", "Review status", "annotation_state", "QC", "approval", "radiologist decision"]


def test_words():
    assert [word for word in REJECTED if state_in(word) != 2] == []
    assert [word for word in PENDING if state_in(word) != 1] == []
    assert [word for word in ACCEPTED if state_in(word) != 0] == []
    others = ["new", "stable", "present", "absent", "good", "severe", "12.5", "1", "0", "Dr. Who", "active", "former"]
    assert [word for word in others if state_in(word) is not None] == []


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("no", "wait", "yes"), list(zip(REJECTED, PENDING, [*ACCEPTED, "ok"], strict=True)))
def test_what_a_review_made_of_each_row(read, column, no, wait, yes):
    lines = [
        f"0,M,1,2,5,5,{yes}",
        f"0,M,20,2,5,5,{no}",
        f"1,M,1,2,5,5,{no}",
        f"2,M,1,2,5,5,{wait}",
        f"3,N,1,2,5,5,{yes}",
    ]
    lines += [f"4,M,1,2,5,5,{yes}", f"4,N,1,2,5,5,{no}", f"5,N,1,2,5,5,{yes}", f"5,N,30,2,5,5,{wait}"]
    source = read(f"image,label,x,y,w,h,{column}", *lines)
    at = (1, 2)
    assert known(source) == {
        "0": ("M", "", [at]), "1": ("", "MN", []), "2": ("", "MN", []), "3": ("N", "", [at]),
        # N was rejected there, which does not say that it is absent; M is there, and is all that is said.
        "4": ("M", "N", [at]), "5": ("N", "", [at]),
    }  # fmt: skip
    # Where a box was rejected or waits beside another, there is no background for its category.
    assert [image.elsewhere for image in source.images] == [(1,), (), (), (), (), (2,)]
    assert not any(image.normal for image in source.images)
    assert said(source) == {REJECTED_ROWS: f"3 of 9; {column}: {no}", PENDING_ROWS: f"2 of 9; {column}: {wait}"}
    assert [drop.reason for drop in source.dropped] == [
        BOX_REJECTED, BOX_REJECTED, BOX_OF_UNCERTAIN, BOX_REJECTED, BOX_OF_UNCERTAIN
    ]  # fmt: skip


def test_no_finding_that_was_rejected(read):
    lines = [
        "0,No finding,ok",
        "1,No finding,rejected",
        "2,No finding,pending",
        "3,M,ok",
        "4,M,rejected",
        "4,No finding,ok",
    ]
    source = read("image,label,status", *lines)
    # Of 4 a finding was rejected, and that there is none was not.
    assert known(source) == {
        "0": ("", "", []), "1": ("", "M", []), "2": ("", "M", []), "3": ("M", "", []), "4": ("", "M", [])
    }  # fmt: skip
    assert [image.normal for image in source.images] == [True, False, False, False, False]


def test_another_reader_may_say_that_it_is_absent(read):
    lines = ["0,A,M,rejected", "0,B,No finding,ok", "1,A,M,rejected", "1,A,N,ok", "2,A,M,rejected", "2,B,N,rejected"]
    source = read("image,reader,label,status", *lines, "3,A,M,rejected", "3,B,M,ok", "4,A,M,pending", "4,B,N,ok")
    assert known(source) == {
        "0": ("", "", []), "1": ("N", "M", []), "2": ("", "MN", []), "3": ("M", "", []), "4": ("N", "M", [])
    }  # fmt: skip


@pytest.mark.parametrize("blank", ["unknown", "negative", "positive"])
def test_columns_of_labels(read, blank):
    lines = ["0,1,0,ok", "1,1,0,rejected", "2,0,0,declined", "3,0,1,pending", "4,0,,ok", "5,0,1,ok"]
    found = known(read("image,M,N,status", *lines, blank=blank))
    # No flag for blanks makes anything of what was rejected or waits.
    assert [found[name][:2] for name in "1235"] == [("", "MN"), ("", "MN"), ("", "MN"), ("N", "")]
    assert found["4"][:2] == {"unknown": ("", "N"), "negative": ("", ""), "positive": ("N", "")}[blank]


def test_tables_of_boxes_alone(read):
    lines = ["0,1,2,5,5,ok", "1,1,2,5,5,rejected", "2,1,2,5,5,pending", "0,9,2,5,5,rejected"]
    source = read("image,x,y,w,h,status", *lines)
    assert known(source) == {"0": ("", "", [(1, 2)]), "1": ("", "Finding", []), "2": ("", "Finding", [])}


@pytest.mark.parametrize(
    ("column", "counts", "not_so", "kind"),
    [
        ("deleted", "0", "1", REJECTED_ROWS), ("is_rejected", "no", "yes", REJECTED_ROWS),
        ("Was removed", "FALSE", "TRUE", REJECTED_ROWS), ("confirmed", "1", "0", PENDING_ROWS),
        ("is verified", "yes", "no", PENDING_ROWS), ("needs_review", "0", "1", PENDING_ROWS),
        ("approved", "true", "false", PENDING_ROWS), ("uncertain", "n", "y", PENDING_ROWS),
        ("verified_by_radiologist", "1", "0", PENDING_ROWS), ("LabelConfirmed", "yes", "no", PENDING_ROWS),
        ("box deleted", "0", "1", REJECTED_ROWS), ("qc_passed", "1", "0", PENDING_ROWS),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_column_of_yes_and_no_called_after_a_review(read, column, counts, not_so, kind, is_wide):
    if is_wide:
        source = read(f"image,M,N,{column}", f"0,1,0,{counts}", f"1,1,0,{not_so}", f"2,0,1,{counts}")
    else:
        source = read(f"image,label,{column}", f"0,M,{counts}", f"1,M,{not_so}", f"2,N,{counts}")
    assert known(source) == {"0": ("M", "", []), "1": ("", "MN", []), "2": ("N", "", [])}
    hint = f"; --label with {column} among the others if that is a finding" if is_wide else ""
    assert said(source) == {kind: f"1 of 3; {column}: {not_so}{hint}"}


def test_empty_cells(read):
    # Beside "confirmed" they are not confirmed; beside "rejected" alone they are not rejected.
    assert known(read("image,label,status", "0,M,ok", "1,M,", "2,N,ok"))["1"] == ("", "MN", [])
    assert known(read("image,label,status", "0,M,", "1,M,rejected", "2,N,"))["0"] == ("M", "", [])


def test_two_columns(read):
    source = read("image,label,status,deleted", "0,M,ok,0", "1,M,ok,1", "2,N,pending,0", "3,N,ok,0")
    assert known(source) == {"0": ("M", "", []), "1": ("", "MN", []), "2": ("", "MN", []), "3": ("N", "", [])}


def test_with_a_column_that_says_whether_the_label_is_there(read):
    lines = ["0,M,1,ok", "1,M,0,ok", "2,M,0,rejected", "3,M,1,rejected", "4,N,1,ok"]
    found = known(read("image,label,present,status", *lines))
    assert found == {
        "0": ("M", "N", []), "1": ("", "N", []), "2": ("", "MN", []), "3": ("", "MN", []), "4": ("N", "M", [])
    }  # fmt: skip


@pytest.mark.parametrize("other", ["stable", "new", "3"])
@pytest.mark.parametrize("word", ["rejected", "Rejected - too small", "to review"])
def test_words_that_reject_beside_others_are_refused(read, word, other):
    with pytest.raises(
        InputError, match=f"status has '{word}' beside '.*{other}'.*write accepted, rejected or pending"
    ):
        read("image,label,status", f"0,M,{word}", f"1,N,{other}")


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("COVID status", "confirmed suspected"), ("covid_status", "confirmed negative pending"),
        ("covid_status", "confirmed excluded suspected"), ("PCR status", "positive rejected unclear"),
        ("ExamStatus", "final preliminary"), ("exam_status", "completed cancelled"),
        ("ReportStatus", "Final Preliminary Addendum"), ("consent_status", "obtained declined"),
        ("treatment_status", "completed ongoing failed"), ("vaccination_status", "completed unknown pending"),
        ("device state", "open removed"), ("PatientStatus", "inpatient outpatient"),
        ("culture_status", "final pending"),
    ],
)  # fmt: skip
def test_a_status_of_something_else_is_named_and_takes_no_row(read, column, cells):
    cells = cells.split()
    source = read(f"image,label,{column}", *[f"{row},{'MN'[row % 2]},{cell}" for row, cell in enumerate(cells)])
    assert [facts[:2] for facts in known(source).values()] == [("M", ""), ("N", ""), ("M", "")][: len(cells)]
    assert said(source) == {OF_REVIEW: f"{column} ({', '.join(cells)})"}


def test_but_one_that_rejects_as_only_reviews_do_is_read_whatever_it_is_called(read):
    found = known(read("image,label,hospital_status", "0,M,approved", "1,M,rejected", "2,N,approved"))
    assert found == {"0": ("M", "", []), "1": ("", "MN", []), "2": ("N", "", [])}
    with pytest.raises(InputError, match="hospital_status has 'rejected - small' beside 'fine'"):
        read("image,label,hospital_status", "0,M,fine", "1,M,rejected - small")


@pytest.mark.parametrize("column", ["tb_confirmed", "confirmed TB", "Deleted Scene", "U", "model_correct"])
def test_yes_and_no_of_something_else_are_findings_of_their_own(read, column):
    source = read(f"image,M,{column}", "0,1,0", "1,0,1", "2,1,1")
    assert {name: facts[:2] for name, facts in known(source).items()} == {
        "0": ("M", ""), "1": (column, ""), "2": (f"M{column}", "")
    }  # fmt: skip


def test_which_cells_wait_is_said_of_empty_ones_too(read):
    source = read("image,label,QC", "0,M,pass", "1,N,", "2,N,pass")
    assert said(source) == {PENDING_ROWS: "1 of 3; QC: empty cells"}
    # Reports are amended after they are final.
    assert known(read("image,label,status", "0,M,final", "1,N,Addendum"))["1"] == ("N", "", [])


def test_what_may_be_a_review_is_named_with_its_cells(read):
    source = read("image,label,status,remark,review_date", "0,M,new,,2020-01-02", "1,N,stable,rejected,")
    assert known(source) == {"0": ("M", "", []), "1": ("N", "", [])}
    assert said(source) == {OF_REVIEW: "status (new, stable), remark (rejected), review_date (2020-01-02)"}
    # A column called valid may be of the split for validating.
    assert said(read("image,label,valid", "0,M,0", "1,M,1")) == {OF_ANSWERS: "valid"}


def test_a_table_of_which_no_row_counts_is_refused(read):
    with pytest.raises(InputError, match="by status no row is confirmed"):
        read("image,label,status", "0,M,rejected", "1,N,pending")


TAKEN = [
    "deleted_at",
    "DeletedAt",
    "deletedBy",
    "date_deleted",
    "removed_on",
    "Rejection date",
    "label_rejected_by",
    "superseded_by",
]
PASSED = ["verified_by", "approvedAt", "Confirmation date", "validated_by_user", "date_signed", "reviewed_by"]
OTHERS = [
    "tube_removed_at",
    "deleted",
    "date",
    "updated_at",
    "created_by",
    "withdrawn_on",
    "covid_confirmed_on",
    "study_date",
    "by",
]


def test_names_of_when_and_by_whom():
    assert [name for name in (*TAKEN, *PASSED, *OTHERS) if is_of_taking(name)] == TAKEN
    assert [name for name in (*TAKEN, *PASSED, *OTHERS) if is_of_passing(name)] == PASSED


def test_cells_of_when_and_by_whom():
    yes = ["2024-05-01", "2024-05-01T10:00:00Z", "01/05/2024", "1714557600", "Dr. A", "1", "true", "R9", "2000-01-01"]
    no = ["", "0", "0.0", "-", "NaT", "null", "never", "nobody", "False", "0000-00-00 00:00:00", "0001-01-01T00:00:00Z"]
    no += ["9999-12-31", "1970-01-01 00:00:00", "1/1/0001 12:00:00 AM", "not deleted"]
    assert [text for text in (*yes, *no) if is_taken(text)] == yes


@pytest.mark.parametrize("column", TAKEN)
@pytest.mark.parametrize("none", ["", "0", "NULL"])
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_column_of_when_a_row_was_deleted(read, column, none, is_wide):
    cells = [none, "2024-05-01 10:00:00", none]
    labels = ["1,0", "1,0", "0,1"] if is_wide else "MMN"
    lines = [f"{row},{labels[row]},{cell}" for row, cell in enumerate(cells)]
    source = read(f"image,{'M,N' if is_wide else 'label'},{column}", *lines)
    assert known(source) == {"0": ("M", "", []), "1": ("", "MN", []), "2": ("N", "", [])}
    assert said(source) == {REJECTED_ROWS: f"1 of 3; {column}: 2024-05-01 10:00:00"}


def test_boxes_of_deleted_rows(read):
    lines = ["0,M,1,2,5,5,", "0,M,20,2,5,5,2024-05-01", "1,M,1,2,5,5,2024-05-02", "2,N,1,2,5,5,"]
    source = read("image,label,x,y,w,h,deleted_at", *lines)
    assert known(source) == {"0": ("M", "", [(1, 2)]), "1": ("", "MN", []), "2": ("N", "", [(1, 2)])}
    assert [drop.reason for drop in source.dropped][:2] == [BOX_REJECTED, BOX_REJECTED]


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("cells", [("1", "0", "1"), ("AB", "", "CD"), ("2024-05-01", "", "2024-05-02")])
def test_who_has_verified_some_rows_is_named_and_no_finding(read, cells, is_wide):
    labels = ["1,0", "1,0", "0,1"] if is_wide else "MMN"
    lines = [f"{row},{labels[row]},{cell}" for row, cell in enumerate(cells)]
    source = read(f"image,{'M,N' if is_wide else 'label'},verified_by", *lines)
    assert known(source) == {"0": ("M", "", []), "1": ("M", "", []), "2": ("N", "", [])}
    assert said(source) == {OF_REVIEW: f"verified_by ({', '.join(filter(None, dict.fromkeys(cells)))})"}


def test_who_has_verified_all_rows_goes_without_a_word(read):
    source = read("image,label,verified_by,verified_on", "0,M,AB,2024-05-01", "1,N,CD,2024-05-02")
    assert known(source) == {"0": ("M", "", []), "1": ("N", "", [])}
    assert said(source) == {}
