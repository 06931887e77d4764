"""Results that the server keeps for DICOMweb: in memory alone, bounded, and each for a while.

What was promised is kept for its time: where there is no room, what is new is refused.
"""

import dataclasses
import io
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from xray.outputs.dicom.objects import quietly
from xray.serving.worker import RefusedError

OVERHEAD = 2**14
"""Bytes that an object takes beside its file."""

STUDY_TAGS = (
    *("SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName"),
    *("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
)
SERIES_TAGS = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "Manufacturer")
INSTANCE_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames"),
    *("ContentLabel", "ContentDescription"),
)
"""Attributes that a search returns and compares with, of each level (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""


class FullError(RefusedError):
    """There is no room for more results. retry_after: whole seconds after which the oldest are deleted."""

    def __init__(self, retry_after: int) -> None:
        line = f"the results of others take all the room: try again in {retry_after} s"
        super().__init__(503, line, {"Retry-After": str(retry_after)})
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class Stored:
    """A result. content: its DICOM file. attributes: tag, 8 hexadecimal digits → DICOM JSON of what searches see."""

    study: str
    series: str
    uid: str
    syntax: str
    content: bytes
    attributes: Mapping[str, Any]

    @property
    def n_bytes(self) -> int:
        """What it counts for."""
        return len(self.content) + OVERHEAD

    @property
    def dataset(self) -> Dataset:
        """The object itself, read anew."""
        with quietly():
            return dcmread(io.BytesIO(self.content))


@quietly()
def stored(dataset: Dataset) -> Stored:
    """An object as it is kept."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    # Read again, its values are Python's own, which JSON knows.
    buffer.seek(0)
    dataset = dcmread(buffer, stop_before_pixels=True)
    attributes = {}
    for keyword in (*STUDY_TAGS, *SERIES_TAGS, *INSTANCE_TAGS):
        if keyword in dataset:
            attributes[f"{int(Tag(keyword)):08X}"] = dataset[keyword].to_json_dict(None, 1024)
    syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    return Stored(
        str(dataset.StudyInstanceUID),
        str(dataset.SeriesInstanceUID),
        str(dataset.SOPInstanceUID),
        str(syntax),
        buffer.getvalue(),
        attributes,
    )


@dataclasses.dataclass
class _Answered:
    digest: str
    results: list[Stored]
    until: float


class ResultStore:
    """The results of the radiographs of the last `seconds` seconds, of `n_bytes` at most; any thread may ask.

    clock: seconds.
    """

    def __init__(self, n_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.n_bytes, self.seconds, self._clock = n_bytes, seconds, clock
        self._of: dict[tuple[str, str], _Answered] = {}
        self._lock = threading.Lock()

    def has(self, source: tuple[str, str], digest: str) -> bool:
        """Whether a radiograph was answered already; if so, its results are kept for their time from now.

        source: its study and itself, by their identifiers. digest: of its file.
        """
        with self._lock:
            self._purge()
            answered = self._of.get(source)
            if answered is None or answered.digest != digest:
                return False
            answered.until = self._clock() + self.seconds
            return True

    def check_room(self) -> None:
        """Raises FullError if there is room for nothing more."""
        with self._lock:
            self._purge()
            self._check(OVERHEAD)

    def add(self, source: tuple[str, str], digest: str, results: Iterable[Stored]) -> None:
        """Keeps the results of a radiograph, in place of earlier ones. Raises FullError."""
        results = list(results)
        with self._lock:
            self._purge()
            before = self._of.pop(source, None)
            try:
                self._check(sum(one.n_bytes for one in results))
            except FullError:
                if before is not None:
                    self._of[source] = before
                raise
            self._of[source] = _Answered(digest, results, self._clock() + self.seconds)

    def results(self, study: str = "", series: str = "", uid: str = "") -> list[Stored]:
        """All that is kept, or what is of this study, series, or is this object, in order."""
        with self._lock:
            self._purge()
            found = [one for answered in self._of.values() for one in answered.results]
        wanted = ((study, "study"), (series, "series"), (uid, "uid"))
        chosen = [one for one in found if all(value in ("", getattr(one, name)) for value, name in wanted)]
        return sorted(chosen, key=lambda one: (one.study, one.series, one.uid))

    def purge(self) -> None:
        """Deletes what has been kept for its time."""
        with self._lock:
            self._purge()

    def _purge(self) -> None:
        now = self._clock()
        for source in [source for source, answered in self._of.items() if answered.until <= now]:
            del self._of[source]

    def _check(self, n_more: int) -> None:
        taken = sum(one.n_bytes for answered in self._of.values() for one in answered.results)
        if taken + n_more > self.n_bytes:
            oldest = min((answered.until for answered in self._of.values()), default=self._clock() + self.seconds)
            raise FullError(max(1, round(oldest - self._clock())))
