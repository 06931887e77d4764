"""The page in a real browser: what a hand, a keyboard and a screen reader find there.

Screenshots are kept in artifacts/page; two of them are the README's, in docs/images.
"""

import base64
import contextlib
import csv
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pydicom.data
import pytest
from serving_cases import TWELVE_BITS, Oracle, serving, write_phantom

from xray.findings import FINDINGS
from xray.outputs.dicom.objects import Algorithm
from xray.phantoms.dicom import Storage
from xray.radiographs.image_check import Gate
from xray.serving.app import create_app
from xray.serving.service import Limits, Service
from xray.structures.predictions import NO_FINDING_CATEGORY, read_predictions
from xray.structures.submission import read_submission
from xray.structures.thresholds import Point, Thresholds

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "artifacts" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCORES = (0.93, 0.78, 0.64, 0.52, 0.41, 0.22, 0.08)
WIDTH, HEIGHT = 1024, 1220

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here to look at the page with")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """a.dcm: five findings, one a pneumothorax; b.dcm: MONOCHROME1; c.png; broken.dcm; d.dcm and e.dcm: normal."""
    return tmp_path_factory.mktemp("radiographs")


@pytest.fixture(scope="module")
def truths(folder):
    inverted = Storage(12, True, True, "1.2.840.10008.1.2.1", False)
    truths = {
        "a.dcm": write_phantom(folder / "a.dcm", 3, (0, 3, 10, 11, 12), (WIDTH, HEIGHT), TWELVE_BITS),
        "b.dcm": write_phantom(folder / "b.dcm", 5, (8,), (400, 480), inverted),
        "d.dcm": write_phantom(folder / "d.dcm", 9, (), (300, 360), TWELVE_BITS),
    }
    (folder / "e.dcm").write_bytes((folder / "d.dcm").read_bytes())
    (folder / "broken.dcm").write_bytes((folder / "a.dcm").read_bytes()[:40000])
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (220, 200), dtype=np.uint8), (0, 0), 8)
    assert cv2.imwrite(str(folder / "c.png"), picture)
    return truths


@pytest.fixture(scope="module")
def oracle(folder, truths):
    oracle = Oracle()
    for name, truth in truths.items():
        oracle.learn(folder / name, truth, SCORES)
    return oracle


@pytest.fixture(scope="module")
def address(oracle):
    with Service(oracle, ["fold0", "fold1", "masks"], Limits(places=6, max_bytes=2**23)) as service:
        app = create_app(service, Algorithm("xray", "1", {"model 1": "sha256:0"}))
        with serving(app) as address:
            yield address


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    # The sandbox needs rights that containers, and so build machines, do not give.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address, oracle):
    """(path, **options of the browser context) → the page, opened; in the end nothing may have gone wrong on it."""
    contexts, problems = [], []

    def open_it(path="/", **options):
        context = browser.new_context(accept_downloads=True, **{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        page.on("request", lambda request: request.url.startswith((address, "blob:")) or problems.append(request.url))
        page.goto(f"{address}{path}")
        return page

    yield open_it
    oracle.gate_open.set()
    oracle.delay = 0.0
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(open_page, folder):
    """The page with a.dcm on it, done."""
    page = open_page()
    add(page, folder, "a.dcm")
    done(page, 1)
    shown(page)
    return page


def expect(locator):
    from playwright.sync_api import expect

    # Where other work keeps the machine busy, five seconds are not enough.
    expect.set_options(timeout=120_000)
    return expect(locator)


def add(page, folder, *names):
    page.set_input_files("#input", [folder / name for name in names])


def done(page, n):
    """Waits until n radiographs have their findings."""
    some = page.locator(".file:not(.failed) .state", has_text="finding")
    expect(some.or_(page.locator(".file .state", has_text="nothing from"))).to_have_count(n)


def shown(page):
    """Waits until the radiograph is on the canvas."""
    expect(page.locator("#hud-pixel")).to_contain_text("px")
    expect(page.locator("#waiting")).to_be_hidden()
    settle(page)


def settle(page):
    """Waits for two frames, so that everything asked for is drawn."""
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")


def pixels(page) -> np.ndarray:
    """What is on the canvas, (height, width, 3) RGB."""
    settle(page)
    picture = base64.b64decode(page.evaluate("() => document.getElementById('canvas').toDataURL()").partition(",")[2])
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def changed(before, after) -> float:
    """Share of pixels that differ visibly."""
    return float((np.abs(before.astype(int) - after).max(axis=-1) > 12).mean())


def keep(page, name, picture="", full_page=False):
    """Keeps a screenshot; XRAY_PICTURES=1 makes it the README's `picture`."""
    settle(page)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=full_page)
    if picture and os.environ.get("XRAY_PICTURES"):
        shutil.copy(path, ROOT / "docs" / "images" / picture)


def rows(page) -> list[str]:
    return [name.strip() for name in page.locator("#findings tbody th").all_inner_texts()]


def download(page, name) -> tuple[str, bytes]:
    with page.expect_download() as found:
        page.get_by_role("button", name=name, exact=True).click()
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def test_a_radiograph_with_its_findings(page, truths):
    truth = truths["a.dcm"]
    names = [FINDINGS[class_id] for class_id in truth.class_ids][: len(SCORES)]
    sure = [name for name, score in zip(names, SCORES, strict=False) if score >= 0.3]
    assert rows(page) == sure
    assert len(sure) >= 3
    expect(page.locator("#count")).to_have_text(str(len(sure)))
    expect(page.get_by_role("meter", name="Probability of no finding")).to_have_attribute("aria-valuenow", "0.07")
    expect(page.locator("header")).to_contain_text("Not for clinical use")
    expect(page.locator("#models")).to_have_text("fold0, fold1, masks · 14 categories")
    expect(page.locator("#hud-pixel")).to_have_text(f"{WIDTH} × {HEIGHT} px")
    expect(page.locator("#live")).to_contain_text(f"{len(sure)} findings from a confidence of 0.30 in a.dcm")
    size = page.locator("#findings tbody td:last-child").first
    x1, y1, x2, y2 = truth.boxes[0] * truth.pixel_spacing
    expect(size).to_have_text(f"{x2 - x1:.0f} × {y2 - y1:.0f} mm")
    page.mouse.move(5, 5)
    keep(page, "desktop", "page.png")


def test_the_slider_filters_at_once(page, oracle):
    asked = len(oracle.seen)
    slider = page.get_by_label("Confidence from")
    before, all_rows = pixels(page), rows(page)
    slider.fill("0.6")
    assert len(rows(page)) == sum(score >= 0.6 for score in SCORES[: len(all_rows)])
    expect(page.locator("#confidence-value")).to_have_text("0.60")
    assert changed(before, pixels(page)) > 0.001
    slider.fill("0")
    assert len(rows(page)) >= len(all_rows)
    slider.fill("1")
    assert rows(page) == []
    expect(page.locator("#nothing")).to_contain_text("No finding as sure as this")
    slider.focus()
    page.keyboard.press("[")
    expect(page.locator("#confidence-value")).to_have_text("0.95")
    assert len(oracle.seen) == asked


def test_layers(page):
    everything, n = pixels(page), len(rows(page))
    chip = page.locator("#layers").get_by_role("button", name="Cardiomegaly")
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "false")
    expect(chip).to_be_focused()
    assert len(rows(page)) == n - 1
    assert "Cardiomegaly" not in rows(page)
    assert changed(everything, pixels(page)) > 0.001
    page.keyboard.press("Enter")
    assert len(rows(page)) == n
    page.mouse.move(5, 5)
    pictures = [pixels(page)]
    for name in ("Names", "Boxes", "Masks"):
        button = page.get_by_role("button", name=name, exact=True)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "false")
        pictures.append(pixels(page))
        assert changed(*pictures[-2:]) > 0.0005, name
    # All layers off, it is the radiograph alone, which is grey.
    assert np.ptp(pictures[-1].astype(int), axis=-1).max() <= 2


def test_a_row_lights_its_box_and_a_box_its_row(page):
    before = pixels(page)
    page.locator("#findings tbody tr").nth(1).hover()
    expect(page.locator("#findings tbody tr").nth(1)).to_have_class("lit")
    lit = pixels(page)
    assert changed(before, lit) > 0.002
    keep(page, "lit")
    page.mouse.move(5, 5)
    assert changed(before, pixels(page)) < 0.0005
    page.locator("#findings tbody button").nth(1).focus()
    assert changed(lit, pixels(page)) < 0.01
    page.keyboard.press("Enter")
    expect(page.locator("#zoom")).not_to_have_text("")
    zoomed = pixels(page)
    assert changed(lit, zoomed) > 0.1
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#findings tbody tr.lit")).to_have_count(1)


def test_the_canvas_shows_the_file_s_own_greys(page, folder, truths):
    from xray.radiographs.radiograph import read_radiograph

    for name in ("Names", "Boxes", "Masks", "1:1"):
        page.get_by_role("button", name=name, exact=True).click()
    expect(page.locator("#zoom")).to_have_text("100 %")
    seen = pixels(page)[:, :, 0].astype(np.float32)
    expected = read_radiograph(folder / "a.dcm").pixels
    match = cv2.matchTemplate(expected.astype(np.float32), seen, cv2.TM_SQDIFF)
    _, _, (x, y), _ = cv2.minMaxLoc(match)
    difference = np.abs(seen - expected[y : y + seen.shape[0], x : x + seen.shape[1]])
    assert np.percentile(difference, 99.9) <= 1


def test_window_level_and_invert(page):
    canvas = page.locator("#canvas")
    box = canvas.bounding_box()
    x, y = box["x"] + 60, box["y"] + box["height"] - 80
    first = pixels(page)
    text = page.locator("#hud-window").inner_text()
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x + 60, y - 120, steps=4)
    page.mouse.up(button="right")
    assert page.locator("#hud-window").inner_text() != text
    assert changed(first, pixels(page)) > 0.2
    expect(page.get_by_label("Preset")).to_have_value("Own")
    canvas.focus()
    before = pixels(page)
    for key in ("Shift+ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
        page.keyboard.press(key)
        assert changed(before, pixels(page)) > 0.01
    page.keyboard.press("r")
    expect(page.get_by_label("Preset")).to_have_value("As stored")
    expect(page.locator("#hud-window")).to_have_text(text)
    page.get_by_label("Preset").select_option("Lungs")
    assert changed(first, pixels(page)) > 0.2
    keep(page, "lungs")
    page.get_by_label("Width").fill("500")
    expect(page.locator("#width-value")).to_have_text("500")
    page.get_by_label("Preset").select_option("As stored")
    page.mouse.move(5, 5)
    page.get_by_role("button", name="Invert").click()
    expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")
    middle = np.s_[300:500, 300:500]
    inverse = 255 - pixels(page)[middle].astype(int)
    assert np.median(np.abs(inverse - first[middle])) <= 2
    # The mode for those who have no right button.
    page.get_by_role("button", name="Window", exact=True).click()
    before = page.locator("#hud-window").inner_text()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y, steps=2)
    page.mouse.up()
    assert page.locator("#hud-window").inner_text() != before


def test_zoom_and_pan(page):
    canvas, zoom = page.locator("#canvas"), page.locator("#zoom")
    box = canvas.bounding_box()
    percent = lambda: int(zoom.inner_text().split()[0])  # noqa: E731
    fitted, whole = percent(), pixels(page)
    canvas.hover(position={"x": 300, "y": 300})
    page.mouse.wheel(0, -240)
    assert percent() > fitted
    before = pixels(page)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 250, steps=3)
    page.mouse.up()
    assert changed(before, pixels(page)) > 0.2
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp"):
        before = pixels(page)
        page.keyboard.press(key)
        assert changed(before, pixels(page)) > 0.05
    before = percent()
    page.keyboard.press("+")
    assert percent() > before
    page.keyboard.press("-")
    assert percent() == before
    page.keyboard.press("1")
    assert percent() == 100
    page.keyboard.press("0")
    assert percent() == fitted
    page.mouse.move(5, 5)
    assert changed(whole, pixels(page)) < 0.01
    for _ in range(40):
        page.keyboard.press("+")
    assert percent() == 1600
    # Wherever it is dragged to, the radiograph stays in view.
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("0")
    assert changed(whole, pixels(page)) < 0.01


def test_by_keyboard_alone(page):
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("() => document.activeElement.id || document.activeElement.className")
        if name == "input" and "input" in seen:
            break
        seen.append(name)
        if name not in ("", "input"):
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            hidden = page.evaluate("() => document.activeElement.type === 'radio'")
            assert hidden or outline != "none", f"{name} does not show its focus"
    for name in ("help", "input", "file", "canvas", "zoom-in", "invert", "boxes", "confidence", "preset", "level"):
        assert name in seen, name
    first = page.locator("#findings tbody button").first
    first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#findings tbody button").nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#findings tbody button").last).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    keep(page, "keys")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for key, name in (("b", "Boxes"), ("n", "Names"), ("m", "Masks"), ("i", "Invert"), ("w", "Window")):
        button = page.get_by_role("button", name=name, exact=True)
        was = button.get_attribute("aria-pressed")
        page.keyboard.press(key)
        expect(button).to_have_attribute("aria-pressed", "false" if was == "true" else "true")


def test_every_control_has_a_name_for_screen_readers(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, table, [role]")].filter((control) => {
          const label = control.getAttribute("aria-label") || control.labels?.[0]?.textContent || control.textContent ||
            document.getElementById(control.getAttribute("aria-labelledby"))?.textContent;
          return control.id !== "live" && control.checkVisibility() && !label?.trim();
        }).map((control) => control.outerHTML)"""
    )
    assert nameless == []
    expect(page.locator("#live")).to_have_attribute("aria-live", "polite")
    expect(page.get_by_role("img", name="Radiograph a.dcm")).to_be_visible()


def test_a_broken_file_among_five(open_page, folder, oracle):
    page = open_page()
    oracle.gate_open.clear()
    add(page, folder, "a.dcm", "broken.dcm", "c.png", "b.dcm", "d.dcm")
    failed = page.locator(".file", has_text="broken.dcm")
    expect(failed).to_have_class("file failed")
    expect(failed.locator(".state")).to_contain_text(f"truncated: {WIDTH} x {HEIGHT} pixels")
    expect(page.locator("#live")).to_contain_text("broken.dcm failed: truncated")
    # The radiograph is there before its findings are, and each file says how far it is.
    expect(page.locator("#hud-pixel")).to_have_text(f"{WIDTH} × {HEIGHT} px")
    expect(page.locator(".file .state", has_text="is being looked at")).to_have_count(1)
    expect(page.locator(".file .state", has_text="in the queue")).to_have_count(3)
    expect(page.get_by_role("progressbar", name="Progress of c.png")).to_be_visible()
    keep(page, "five")
    oracle.gate_open.set()
    done(page, 4)
    expect(page.locator("#overall")).to_have_text("5 of 5 done, 1 failed")
    failed.click()
    expect(page.locator("#waiting-text")).to_contain_text("truncated")
    assert rows(page) == []
    page.keyboard.press("j")
    expect(page.locator('.file[aria-current="true"]')).to_contain_text("c.png")
    expect(page.locator("#hud-pixel")).to_have_text("200 × 220 px")
    page.keyboard.press("j")
    shown(page)
    assert rows(page) == ["Nodule/Mass"]
    page.get_by_role("button", name="Remove broken.dcm").click()
    expect(page.locator("#list li")).to_have_count(4)


def test_more_than_the_server_has_places_for(open_page, folder, oracle):
    page = open_page()
    oracle.delay = 0.05
    add(page, folder, *["d.dcm", "e.dcm"] * 6)
    done(page, 12)
    expect(page.locator("#overall")).to_have_text("12 of 12 done")


def test_dropped_files_and_files_that_are_too_large(open_page, folder):
    page = open_page()
    transfer = page.evaluate_handle(
        """(text) => {
          const transfer = new DataTransfer();
          const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
          transfer.items.add(new File([bytes], "<b>dropped</b>.dcm"));
          transfer.items.add(new File([new Uint8Array(9 * 2 ** 20)], "large.dcm"));
          return transfer;
        }""",
        base64.b64encode((folder / "d.dcm").read_bytes()).decode(),
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#dropping")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    done(page, 1)
    expect(page.locator(".file .name").first).to_have_text("<b>dropped</b>.dcm")
    expect(page.locator(".file.failed .state")).to_have_text("larger than the 8 MiB that this server takes")


def test_downloads(open_page, folder, truths):
    page = open_page()
    add(page, folder, "a.dcm", "d.dcm", "c.png")
    done(page, 3)
    shown(page)
    truth = truths["a.dcm"]
    names = [FINDINGS[class_id] for class_id in truth.class_ids]

    name, content = download(page, "CSV")
    assert name == "a.csv"
    table = list(csv.DictReader(io.StringIO(content.decode())))
    assert [row["finding"] for row in table] == rows(page)
    for row, box in zip(table, truth.boxes, strict=False):
        np.testing.assert_allclose([float(row[key]) for key in ("x_min", "y_min", "x_max", "y_max")], box, atol=0.01)
        assert row["image_id"] == "a"

    page.get_by_text("All", exact=True).click()
    name, content = download(page, "Kaggle CSV")
    assert name == "submission.csv"
    (folder / "submission.csv").write_bytes(content)
    submitted = read_submission(folder / "submission.csv")
    name, content = download(page, "JSON")
    assert name == "predictions.json"
    (folder / "predictions.json").write_bytes(content)
    predicted = read_predictions(folder / "predictions.json")
    for found, tolerance in ((submitted, 0.06), (predicted, 0.02)):
        assert found.image_ids == ("a", "d", "c")
        own = found.table.select((found.table.images == 0) & (found.table.labels != NO_FINDING_CATEGORY))
        assert [FINDINGS[label - 1] for label in own.labels] == names
        np.testing.assert_allclose(own.boxes, truth.boxes, atol=tolerance)
        np.testing.assert_allclose(own.scores, np.resize(SCORES, len(names)))
        normal = found.table.select(found.table.labels == NO_FINDING_CATEGORY)
        assert normal.scores == pytest.approx([0.07, 1.0, 0.9])
    assert len(predicted.masks) == 1
    [mask] = predicted.masks.values()
    assert mask["size"] == [HEIGHT, WIDTH]

    page.get_by_text("This radiograph", exact=True).click()
    name, content = download(page, "PNG")
    assert name == "a.png"
    (SCREENSHOTS / "download.png").write_bytes(content)
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == WIDTH
    assert HEIGHT < picture.shape[0] < HEIGHT + 60
    x1, y1, _, y2 = truth.boxes[0].round().astype(int)
    edge = picture[y1:y2, x1 - 2 : x1 + 3].astype(int)
    assert (np.ptp(edge, axis=-1).max(axis=1) > 60).mean() > 0.6  # its left edge is drawn in colour

    name, content = download(page, "DICOM SR")
    assert name == "a-sr.dcm"
    source = pydicom.dcmread(folder / "a.dcm")
    report = pydicom.dcmread(io.BytesIO(content))
    assert report.StudyInstanceUID == source.StudyInstanceUID
    # The findings that are shown, no others: each has its region.
    assert str(report).count("POLYLINE") == len(table)
    name, content = download(page, "DICOM SEG")
    assert name == "a-seg.dcm"
    segment = pydicom.dcmread(io.BytesIO(content))
    np.testing.assert_array_equal(segment.pixel_array.reshape(HEIGHT, WIDTH), truth.pneumothorax_mask)
    for button, modality in (("DICOM GSPS", "PR"), ("DICOM SC", "OT")):
        name, content = download(page, button)
        assert name == f"a-{button.split()[1].lower()}.dcm"
        assert pydicom.dcmread(io.BytesIO(content)).Modality == modality
    name, content = download(page, "FHIR")
    assert name == "a-fhir.json"
    assert json.loads(content)["resourceType"] == "Bundle"

    page.keyboard.press("j")
    expect(page.get_by_role("button", name="DICOM SEG")).to_be_disabled()
    page.keyboard.press("j")
    shown(page)
    page.get_by_role("button", name="DICOM SR").click()
    expect(page.locator("#download-note")).to_have_text("the file is no DICOM file: DICOM objects refer to one")


def test_the_mask_is_drawn_where_it_is(page, truths):
    for name in ("Names", "Boxes", "1:1"):
        page.get_by_role("button", name=name, exact=True).click()
    page.get_by_label("Confidence from").fill("0")
    with_mask = pixels(page)
    page.get_by_role("button", name="Masks", exact=True).click()
    coloured = np.abs(with_mask.astype(int) - pixels(page)).max(axis=-1) > 3
    # At a pixel for a pixel, the middle of the radiograph is in the middle of the canvas.
    height, width = coloured.shape
    assert height < HEIGHT
    assert width < WIDTH
    left, top = round(WIDTH / 2 - width / 2), round(HEIGHT / 2 - height / 2)
    expected = truths["a.dcm"].pneumothorax_mask[top : top + height, left : left + width]
    assert expected.sum() > 10000
    assert 2 * (coloured & expected).sum() / (coloured.sum() + expected.sum()) > 0.96


def test_on_a_phone(open_page, folder):
    page = open_page(viewport={"width": 375, "height": 812}, device_scale_factor=2, is_mobile=True, has_touch=True)
    add(page, folder, "a.dcm", "b.dcm")
    done(page, 2)
    shown(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 375
    for name in ("Boxes", "Names", "Masks", "Invert", "Window", "Fit"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375
        assert box["height"] >= 36
    keep(page, "phone", "page-phone.png")
    before = int(page.locator("#zoom").inner_text().split()[0])
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, gap in (("touchStart", 30), ("touchMove", 45), ("touchMove", 60), ("touchMove", 90)):
        points = [{"x": x - gap, "y": y, "id": 1}, {"x": x + gap, "y": y, "id": 2}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settle(page)
    after = int(page.locator("#zoom").inner_text().split()[0])
    assert 1.8 < after / before < 3.3
    page.get_by_role("button", name="Fit").tap()
    page.locator("#findings tbody button").first.scroll_into_view_if_needed()
    page.locator("#findings tbody button").first.tap()
    expect(page.locator("#findings tbody tr.lit")).to_have_count(1)
    keep(page, "phone-whole", full_page=True)


def test_the_documentation_of_the_api(open_page):
    page = open_page("/docs")
    expect(page.locator("h3", has_text="/predict")).to_be_visible()
    expect(page.locator("#Answer")).to_contain_text("probability that there is none of the 14 findings")
    keep(page, "docs")


def test_findings_from_their_own_thresholds(browser, oracle, folder, truths):
    fitted = Thresholds("boxes", {name: Point(2.0, 0.6) for name in FINDINGS}, "fp-per-image=0.125", "0")
    with (
        Service(oracle, ["run"], Limits(places=6, max_bytes=2**23, n_workers=1), fitted) as service,
        serving(create_app(service)) as address,
        contextlib.closing(browser.new_context()) as context,
    ):
        page = context.new_page()
        page.set_default_timeout(15000)
        page.goto(address)
        add(page, folder, "a.dcm")
        done(page, 1)
        scores = np.resize(SCORES, len(truths["a.dcm"].boxes)).tolist()
        positive = sorted((score for score in scores if score >= 0.6), reverse=True)
        expect(page.locator("#count")).to_have_text(str(len(positive)))
        # Of odds the root: 9 : 1 is 3 : 1.
        odds = [(score / (1 - score)) ** 0.5 for score in positive]
        texts = [f"{value / (1 + value):.2f}" for value in odds]
        assert page.locator("#findings tbody tr td:nth-child(2)").all_inner_texts() == texts
        expect(page.locator("#confidence-value")).to_have_text("own thresholds")
        page.locator("#confidence").fill("0")
        expect(page.locator("#count")).to_have_text(str(len(truths["a.dcm"].boxes)))
        page.locator("#own").click()
        expect(page.locator("#count")).to_have_text(str(len(positive)))


def test_what_is_no_frontal_chest_is_marked(browser, oracle, folder, tmp_path):
    ct = Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm"
    (tmp_path / "ct.dcm").write_bytes(ct.read_bytes())
    with (
        Service(oracle, ["run"], Limits(places=6, max_bytes=2**23, n_workers=1), gate=Gate("warn")) as service,
        serving(create_app(service)) as address,
        contextlib.closing(browser.new_context()) as context,
    ):
        page = context.new_page()
        page.set_default_timeout(15000)
        page.goto(address)
        add(page, folder, "a.dcm")
        done(page, 1)
        expect(page.locator("#normal-card")).to_be_visible()
        expect(page.locator("#check-card")).to_be_hidden()
        add(page, tmp_path, "ct.dcm")
        done(page, 2)
        expect(page.locator(".file .state", has_text="is it the right image?")).to_have_count(1)
        page.get_by_role("button", name="ct.dcm").first.click()
        expect(page.locator("#check")).to_have_text("no frontal chest radiograph: its header says CT")
