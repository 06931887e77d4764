"""What the tests of all DICOM objects share."""

import pytest
from dicom_sources import PHANTOMS, REAL, write_phantom


@pytest.fixture(params=[*REAL, *PHANTOMS])
def source(request, tmp_path):
    """A DICOM file of each kind."""
    if request.param in PHANTOMS:
        return write_phantom(tmp_path / "phantom.dcm", **PHANTOMS[request.param])
    return request.getfixturevalue("shared_data") / "dicom" / request.param
