"""What a header says of its picture, in headers made by hand and in pydicom's own test files."""

from pathlib import Path

import pydicom.data
import pytest
from dicom_cases import chest_values, dataset
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset

from xray.radiographs.body_parts import parts_in, views_in
from xray.radiographs.dicom import read_header_view
from xray.radiographs.header_view import HeaderView
from xray.radiographs.radiograph import RadiographError, read_radiograph

CR, CT, SC = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.7",
)
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"


def code(value: str, meaning: str, scheme: str = "SCT") -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def said(tmp_path: Path, syntax: str = uid.ExplicitVRLittleEndian, **elements: object) -> HeaderView:
    """What a file with these elements says, as the reader of pixels and the reader of headers alone find it."""
    ds = dataset(chest_values(24, 20), 12, **elements)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    view = read_header_view(tmp_path / "a.dcm")
    assert read_radiograph(tmp_path / "a.dcm").header == view
    return view


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({}, ""),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "PA"}, "chest, frontal"),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "LL"}, "chest, lateral"),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "RLO"}, "chest, oblique"),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "LLD"}, "chest, frontal"),
        ({"BodyPartExamined": "CHEST"}, "chest"),
        ({"BodyPartExamined": "", "ViewPosition": ""}, ""),
        ({"BodyPartExamined": "HAND", "ViewPosition": "AP"}, "hand, frontal"),
        ({"BodyPartExamined": "TSPINE"}, "spine"),
        ({"BodyPartExamined": "EXTREMITY"}, "arm or leg"),
        ({"BodyPartExamined": "EXTREMITY", "SeriesDescription": "Hand d.-p."}, "hand"),
        ({"BodyPartExamined": "CHSET", "ViewPosition": "PA"}, "chest, frontal"),
        ({"ViewPosition": "LATERAL"}, "lateral view"),
        ({"ViewCodeSequence": code("272479007", "postero-anterior")}, "frontal view"),
        ({"ViewCodeSequence": code("399173006", "left lateral")}, "lateral view"),
        ({"ViewCodeSequence": code("R-10214", "postero-anterior", "SRT")}, "frontal view"),
        ({"ViewCodeSequence": code("X1", "Left lateral", "99LOCAL")}, "lateral view"),
        ({"AnatomicRegionSequence": code("T-D3000", "Chest", "SRT")}, "chest"),
        ({"AnatomicRegionSequence": code("816094009", "Brustkorb")}, "chest"),
        ({"AnatomicRegionSequence": code("85562004", "Hand")}, "hand"),
        ({"SeriesDescription": "Thorax p.a."}, "chest, frontal"),
        ({"SeriesDescription": "Thorax PA", "StudyDescription": "Hand links"}, "chest, frontal"),
        ({"ViewPosition": "PA", "SeriesDescription": "Chest LAT"}, "chest, frontal or lateral"),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "PA", "SeriesDescription": "PA + LAT"}, "chest, frontal"),
        ({"SeriesDescription": "Thorax 2 Ebenen p.a. und seitlich"}, "chest"),
        ({"StudyDescription": "RX TORAX PA Y LAT"}, "chest"),
        ({"StudyDescription": "XR CHEST 1 VIEW AP"}, "chest, frontal"),
        ({"StudyDescription": "Manchester Royal Infirmary"}, ""),
        ({"ProtocolName": "Lendenwirbelsäule seitlich"}, "spine, lateral"),
        ({"BodyPartExamined": "HAND", "SeriesDescription": "Thorax"}, "chest or hand"),
        ({"Modality": "MG"}, "mammography"),
        ({"SOPClassUID": CT, "Modality": ""}, "CT"),
        ({"SOPClassUID": SC, "Modality": "CT", "BodyPartExamined": "CHEST"}, "CT"),
        ({"SOPClassUID": SC, "Modality": "OT"}, ""),
        ({"SOPClassUID": CR, "Modality": "CR"}, ""),
        ({"SOPClassUID": "1.2.3.4", "Modality": "DR"}, ""),
        ({"PatientOrientation": ["L", "F"]}, "frontal view"),
        ({"PatientOrientation": ["P", "F"]}, "lateral view"),
        ({"PatientOrientation": ["P", "F"], "ViewPosition": "AP"}, "frontal view"),
        ({"PatientOrientation": ["nonsense", ""]}, ""),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "CANINE LATERAL THORAX"}, "animal, lateral"),
        ({"PatientSpeciesDescription": "Felis catus", "BodyPartExamined": "CHEST"}, "animal"),
        ({"PatientSpeciesDescription": "Homo sapiens", "BodyPartExamined": "CHEST"}, "chest"),
    ],
)  # fmt: skip
def test_headers_made_by_hand(tmp_path: Path, elements: dict[str, object], words: str) -> None:
    assert said(tmp_path, **elements).said == words


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_of_either_length_in_either_syntax(tmp_path: Path, syntax: str, undefined: bool) -> None:
    items = code("399348003", "antero-posterior")
    ds = dataset(chest_values(24, 20), 12, ViewCodeSequence=items)
    ds["ViewCodeSequence"].is_undefined_length = undefined
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert read_header_view(tmp_path / "a.dcm").views == ("frontal",)


def test_a_damaged_sequence_about_the_view_does_not_keep_pixels_from_being_read(tmp_path: Path) -> None:
    ds = dataset(chest_values(24, 20), 12)
    ds.save_as(tmp_path / "whole.dcm", enforce_file_format=True)
    content = (tmp_path / "whole.dcm").read_bytes()
    # (0054,0220), explicit SQ of 8 bytes that are no item, before the pixels of (7FE0,0010).
    place = content.rindex(b"\xe0\x7f\x10\x00")
    broken = b"\x54\x00\x20\x02SQ\0\0\x08\0\0\0" + b"no items"
    (tmp_path / "a.dcm").write_bytes(content[:place] + broken + content[place:])
    radiograph = read_radiograph(tmp_path / "a.dcm")
    assert (radiograph.pixels == read_radiograph(tmp_path / "whole.dcm").pixels).all()
    assert radiograph.header == HeaderView()


@pytest.mark.parametrize(
    ("directions", "turn", "is_mirrored"),
    [
        (("L", "F"), 0, False), (("H", "L"), 1, False), (("R", "H"), 2, False), (("F", "R"), 3, False),
        (("R", "F"), 0, True), (("H", "R"), 1, True), (("L", "H"), 2, True), (("F", "L"), 3, True),
        (("LF", "FR"), 0, False), (("A", "F"), None, False), (("L", "R"), None, False), (("L", "L"), None, False),
    ],
)  # fmt: skip
def test_which_way_the_picture_lies(
    tmp_path: Path, directions: tuple[str, str], turn: int | None, is_mirrored: bool
) -> None:
    view = said(tmp_path, PatientOrientation=list(directions))
    assert (view.turn, view.is_mirrored) == (turn, is_mirrored)


def test_raw_data_for_processing(tmp_path: Path) -> None:
    assert said(tmp_path, PresentationIntentType="FOR PROCESSING").for_processing
    assert said(tmp_path, SOPClassUID=FOR_PROCESSING).for_processing
    assert not said(tmp_path, PresentationIntentType="FOR PRESENTATION").for_processing


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("CHEST", "chest"), ("Chest PA", "chest"), ("CHEST_PORTABLE", "chest"), ("CXR", "chest"), ("THORAX", "chest"),
        ("Röntgen-Thorax", "chest"), ("Lunge", "chest"), ("RXTORAX", "chest"), ("Tórax", "chest"), ("TORACE", "chest"),
        ("poumons", "chest"), ("Klatka piersiowa", "chest"), ("ОГК", "chest"), ("Грудная клетка", "chest"),
        ("органы грудной клетки", "chest"), ("胸部正面", "chest"), ("흉부", "chest"), ("Göğüs", "chest"),
        ("Mellkas", "chest"), ("Hrudník", "chest"), ("Lungor", "chest"), ("Keuhkot", "chest"), ("ngực", "chest"),
        ("Abdomen", "abdomen"), ("Becken", "pelvis"), ("HIP", "pelvis"), ("Thoracic spine", "spine"), ("BWS", "spine"),
        ("Brustwirbelsäule", "spine"), ("Columna dorsal", "spine"), ("RIBS", "ribs"), ("Schulter", "shoulder"),
        ("Handgelenk", "hand"), ("WRIST", "hand"), ("手", "hand"), ("Knie", "leg"), ("KNEE", "leg"), ("колено", "leg"),
        ("Sprunggelenk", "foot"), ("FOOT", "foot"), ("SKULL", "head"), ("Schädel", "head"), ("BREAST", "breast"),
    ],
)  # fmt: skip
def test_parts_of_the_body_in_the_words_of_archives(text: str, part: str) -> None:
    assert parts_in(text) == {part}


def test_words_that_name_a_part_only_where_one_is_expected() -> None:
    assert parts_in("Main Building") == frozenset()
    assert parts_in("MAIN", is_place=True) == {"hand"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        # As the standard has them for Body Part Examined (PS3.16 annex L), and in other languages.
        ("EXTREMITY", "arm or leg"), ("UPPER EXTREMITY", "arm or leg"), ("EXTREMITY HAND", "hand"),
        ("LSSPINE", "spine"),
        ("TLSPINE", "spine"), ("KIDNEY", "abdomen"), ("THYROID", "neck"), ("EYE", "head"),
        ("ILIUM", "pelvis"), ("Hände", "hand"), ("Dłoń", "hand"), ("Mão", "hand"), ("يد", "hand"), ("มือ", "hand"),
        ("कृपया हाथ", "hand"), ("Рука", "hand"), ("LEFTHAND", "hand"), ("SCAPHOID", "hand"), ("骨龄", "hand"),
        ("Kręgosłup", "spine"), ("قدم", "foot"), ("เท้า", "foot"), ("ברך", "leg"), ("胸骨", "sternum"),
        ("胸椎", "spine"),
        ("Bröst", "chest"), ("Poitrine", "chest"), ("бял дроб; гръден кош", "chest"), ("หน้าอก", "chest"),
        # Misspelt: letters that have changed places, one too many, one too few, another one.
        ("CHSET", "chest"), ("CEHST", "chest"), ("CHESTT", "chest"), ("CHESY", "chest"), ("THROAX", "chest"),
        ("THORAXX", "chest"), ("SHOLDER", "shoulder"), ("WIRST", "hand"), ("FINGR", "hand"), ("ANKEL", "foot"),
        ("PELIVS", "pelvis"), ("ABDOMNE", "abdomen"), ("FEMRU", "leg"), ("MAMMMA", "breast"),
    ],
)  # fmt: skip
def test_a_place_may_be_named_in_any_language_and_misspelt(text: str, part: str) -> None:
    assert parts_in(text, is_place=True) == {part}


@pytest.mark.parametrize("text", ["CHEEK", "PENIS", "TORSO", "OTHER", "UNKNOWN", "CHES", "FOTO", "ROUTINE"])
def test_what_is_another_word_is_no_misspelt_one(text: str) -> None:
    assert parts_in(text, is_place=True) == frozenset()
    assert parts_in("Chset") == frozenset()


def test_several_parts_in_one_word() -> None:
    assert parts_in("CHESTABDPELVIS", is_place=True) == {"chest", "abdomen", "pelvis"}
    assert parts_in("NECKCHEST", is_place=True) == {"neck", "chest"}


def test_several_parts_are_all_named() -> None:
    assert parts_in("Thorax und Becken") == {"chest", "pelvis"}
    assert parts_in("Thorax + LWS") == {"chest", "spine"}
    assert parts_in("Orchester Chesterfield") == frozenset()


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("PA", {"frontal"}), ("Thorax ap", {"frontal"}), ("a. p. im Liegen", {"frontal"}),
        ("frontal", {"frontal"}), ("正位", {"frontal"}),
        ("LAT", {"lateral"}), ("seitlich", {"lateral"}), ("profil gauche", {"lateral"}),
        ("Thorax de face", {"frontal"}), ("侧位", {"lateral"}),
        ("боковая", {"lateral"}), ("PA + LAT", {"frontal", "lateral"}), ("oblique", {"oblique"}),
        ("left lateral decubitus", set()), ("bilateral", set()), ("", set()),
    ],
)  # fmt: skip
def test_views_in_the_words_of_archives(text: str, views: set[str]) -> None:
    assert views_in(text) == views


@pytest.mark.parametrize(
    ("charset", "codec", "text", "part"),
    [
        ("ISO_IR 100", "latin-1", "TÓRAX", "chest"),
        ("ISO_IR 192", "utf-8", "胸部", "chest"),
        ("ISO_IR 144", "iso8859_5", "Грудная клетка", "chest"),
        ("GB18030", "gb18030", "胸部", "chest"),
        ("", "utf-8", "胸部", "chest"),
        ("", "latin-1", "Fuß, Schädel", "foot or head"),
    ],
)
def test_descriptions_of_any_alphabet(tmp_path: Path, charset: str, codec: str, text: str, part: str) -> None:
    ds = dataset(chest_values(24, 20), 12)
    if charset:
        ds.SpecificCharacterSet = charset
    ds.add_new("SeriesDescription", "UN", text.encode(codec))
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert read_header_view(tmp_path / "a.dcm").said == part


@given(st.text(max_size=64), st.booleans())
def test_any_text_gives_words_of_ours_alone(text: str, is_place: bool) -> None:
    assert parts_in(text, is_place) <= {
        "chest", "abdomen", "pelvis", "spine", "ribs", "sternum", "shoulder", "arm", "hand", "leg", "foot", "head",
        "neck", "breast", "animal", "whole body", "arm or leg",
    }  # fmt: skip
    assert views_in(text) <= {"frontal", "lateral", "oblique"}


def test_nothing_of_a_text_is_passed_on(tmp_path: Path) -> None:
    view = said(tmp_path, SeriesDescription="Doe^Jane thorax", BodyPartExamined="JANE", StudyDescription="Jane Doe")
    assert "jane" not in repr(view).lower()


PYDICOM_FILES = {
    "CT_small.dcm": "CT", "693_J2KI.dcm": "CT", "MR_small.dcm": "MR", "MR_small_bigendian.dcm": "MR",
    "MR_small_implicit.dcm": "MR", "examples_overlay.dcm": "MR", "ExplVR_BigEnd.dcm": "ultrasound",
    "examples_jpeg2k.dcm": "ultrasound", "examples_ybr_color.dcm": "ultrasound", "rtdose_1frame.dcm": "radiotherapy",
    "JPEG2000.dcm": "nuclear medicine", "liver_1frame.dcm": "a segmentation", "test-SR.dcm": "a report",
    "rtplan.dcm": "radiotherapy", "rtstruct.dcm": "radiotherapy",
    "dicomdirtests/77654033/CR1/6154": "spine, lateral", "dicomdirtests/77654033/CR3/6278": "spine, frontal or oblique",
    "dicomdirtests/77654033/CT2/17106": "CT", "dicomdirtests/98892003/MR1/4919": "MR", "image_dfl.dcm": "",
}  # fmt: skip


@pytest.mark.parametrize("name", PYDICOM_FILES)
def test_the_test_files_of_pydicom_are_named_as_what_they_are(name: str) -> None:
    if not (TEST_FILES / name).exists():
        pytest.skip(f"this pydicom has no {name}")
    try:
        view = read_header_view(TEST_FILES / name)
    except RadiographError as error:
        pytest.skip(f"its header cannot be read: {error}")
    assert set(view.said.replace(",", "").split()) == set(PYDICOM_FILES[name].replace(",", "").split())


def test_a_file_that_cannot_be_read_is_named_as_what_it_is() -> None:
    with pytest.raises(RadiographError, match=r"its header says ultrasound, and .*colour"):
        read_radiograph(TEST_FILES / "examples_jpeg2k.dcm")


@pytest.mark.parametrize(
    ("modality", "storage", "words"),
    [
        ("RF", "1.2.840.10008.5.1.4.1.1.12.2", "fluoroscopy"),
        ("", "1.2.840.10008.5.1.4.1.1.12.2", "fluoroscopy"),
        ("", "1.2.840.10008.5.1.4.1.1.12.1.1", "angiography"),
        ("OT", "1.2.840.10008.5.1.4.1.1.104.1", "a document"),
        ("", "1.2.840.10008.5.1.4.1.1.11.1", "a presentation state"),
        ("", "1.2.840.10008.5.1.4.1.1.88.59", "a list of key objects"),
        ("", "1.2.840.10008.5.1.4.1.1.88.33", "a report"),
        ("", "1.2.840.10008.5.1.4.1.1.9.1.1", "an ECG"),
        ("", "1.2.840.10008.5.1.4.1.1.9.2.1", "a waveform"),
        ("", "1.2.840.10008.5.1.4.1.1.66.1", "a registration"),
        ("", "1.2.840.10008.5.1.4.1.1.77.1.1.1", "endoscopy"),
        ("", "1.2.840.10008.5.1.4.1.1.77.1.4.1", "photography"),
        ("DX", "1.2.840.10008.5.1.4.1.1.1.1", ""),
        ("CR", "1.2.840.10008.5.1.4.1.1.1", ""),
        ("OT", "1.2.840.10008.5.1.4.1.1.7", ""),
        ("OT", "1.2.840.10008.5.1.4.1.1.7.2", ""),
    ],
)
def test_classes_of_all_kinds_are_named(tmp_path: Path, modality: str, storage: str, words: str) -> None:
    assert said(tmp_path, SOPClassUID=storage, Modality=modality).modality == words


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.100"])
def test_what_it_is_is_said_where_its_pixels_cannot_be_read(tmp_path: Path, syntax: str) -> None:
    """JPEG XL, a deflated frame, video: their headers are as plain as those of others."""
    ds = dataset(chest_values(24, 20), 12, Modality="US")
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    before = str(ds.file_meta.TransferSyntaxUID).encode()
    content = (tmp_path / "a.dcm").read_bytes()
    wanted = syntax.encode()
    # As long as the former, so that the length of the header stays right.
    at = content.index(before)
    length = int.from_bytes(content[at - 2 : at], "little")
    padded = wanted + b"\0" * (len(wanted) % 2)
    group = content.index(b"\x02\x00\x00\x00UL\x04\x00") + 8
    total = int.from_bytes(content[group : group + 4], "little") + len(padded) - length
    content = content[: at - 2] + len(padded).to_bytes(2, "little") + padded + content[at + length :]
    content = content[:group] + total.to_bytes(4, "little") + content[group + 4 :]
    (tmp_path / "a.dcm").write_bytes(content)
    assert read_header_view(tmp_path / "a.dcm").modality == "ultrasound"
    with pytest.raises(RadiographError, match=r"its header says ultrasound, and transfer syntax .* is not supported"):
        read_radiograph(tmp_path / "a.dcm")
