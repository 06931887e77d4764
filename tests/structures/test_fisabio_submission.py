"""The submission of SIIM-FISABIO-RSNA COVID-19: two tasks in one table."""

import numpy as np
import pytest

from xray.errors import InputError
from xray.structures.fisabio import Found, write_fisabio_submission


def found(image, study, *boxes, **more):
    """boxes: (score, x1, y1, x2, y2)."""
    table = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    return Found(image, study, table[:, 0], table[:, 1:], **more)


def test_rows_of_studies_and_of_radiographs(tmp_path):
    path = tmp_path / "submission.csv"
    unseen = write_fisabio_submission(
        path,
        [
            found("000a", "s1", (0.25, 1, 2, 30.06, 40), (0.5, 10.04, 20, 30, 40), appearances=(0.5, 0.2, 0.0)),
            found("000b", "s1", opacity=0.1, appearances=(0.7, 0.0, 0.0)),
            found("000c", "s2"),
        ],
    )
    assert unseen == []
    # Means of the study: 0.6, 0.1 and 0; negative (1 - 0.6)(1 - 0.1)(1 - 0) = 0.36.
    assert path.read_text().splitlines() == [
        "id,PredictionString",
        "s1_study,typical 0.6 0 0 1 1 negative 0.36 0 0 1 1 indeterminate 0.1 0 0 1 1 atypical 0 0 0 1 1",
        "s2_study,negative 1 0 0 1 1",
        "000a_image,opacity 0.5 10 20 30 40 opacity 0.25 1 2 30.1 40 none 0.5 0 0 1 1",
        "000b_image,none 0.9 0 0 1 1",
        "000c_image,none 1 0 0 1 1",
    ]


def test_the_rows_of_a_sample_submission_all_stand_there(tmp_path):
    path = tmp_path / "submission.csv"
    order = ["000c_image", "s9_study", "s2_study", "000z_image"]
    assert write_fisabio_submission(path, [found("000c", "s2", (1.0, 0, 0, 5, 5))], order) == ["s9_study", "000z_image"]
    assert path.read_text().splitlines()[1:] == [
        "000c_image,opacity 1 0 0 5 5 none 0 0 0 1 1",
        "s9_study,negative 1 0 0 1 1",
        "s2_study,negative 1 0 0 1 1",
        "000z_image,none 1 0 0 1 1",
    ]


def test_two_radiographs_of_one_id_are_refused(tmp_path):
    with pytest.raises(InputError, match="000c is the id of two radiographs"):
        write_fisabio_submission(tmp_path / "a.csv", [found("000c", "s2"), found("000c", "s3")])
    assert list(tmp_path.iterdir()) == []
