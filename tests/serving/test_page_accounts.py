"""The page with accounts and the models' card, in a real browser."""

import shutil
import subprocess

import pytest
from serving_cases import TWELVE_BITS, Oracle, serving, write_phantom
from test_tls import make

from xray.outputs.card.card import card_texts
from xray.outputs.card.facts import Facts, Model
from xray.outputs.dicom.objects import Algorithm
from xray.serving import accounts
from xray.serving.accounts import Accounts, Hash
from xray.serving.app import create_app
from xray.serving.authentication import Checker
from xray.serving.operations import Operations
from xray.serving.service import Limits, Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here to look at the page with")
SECRET = "Käse: 100 %"


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A server with an account, HTTPS where there is openssl, and a card with a script in a name."""
    for name in ("LN", "R", "P"):
        monkeypatch.setattr(accounts, name, 1)
    oracle = Oracle()
    path = tmp_path / "a.dcm"
    oracle.learn(path, write_phantom(path, 3, (0, 3), (256, 300), TWELVE_BITS), (0.9, 0.8))
    description = {"task": "detection", "categories": {"1": "<script>document.title='no'</script>"}, "canvas_size": 64}
    facts = Facts("fold0", [Model("fold0", description, {}, "0" * 64, 1)])
    tls = None
    if shutil.which("openssl"):
        from xray.serving.tls import tls_context

        tls = tls_context(*make(tmp_path, "own"), pytest.fail)
    with Service(oracle, ["fold0"], Limits(places=4, max_bytes=2**23)) as service:
        checker = Checker(Accounts({"ali": Hash.of(SECRET)}))
        operations = Operations(checker, card=lambda: card_texts(facts)[0])
        app = create_app(service, Algorithm("xray", "1", {"model 1": "sha256:0"}), None, operations)
        with serving(app, tls=tls) as address:
            yield address, path


def test_the_page_works_with_an_account(browser, address):
    address, path = address
    stranger = browser.new_context(ignore_https_errors=True)
    response = stranger.request.get(address)
    assert response.status == 401
    stranger.close()
    problems = []
    context = browser.new_context(
        ignore_https_errors=True,
        http_credentials={"username": "ali", "password": SECRET},
        viewport={"width": 1200, "height": 800},
    )
    page = context.new_page()
    page.set_default_timeout(30000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.on("response", lambda response: response.status == 401 and problems.append(response.url))
    page.goto(address)
    page.locator("#input").set_input_files(str(path))
    page.locator("#findings tbody tr").first.wait_for()
    assert page.locator("#findings tbody tr").count() == 2
    link = page.get_by_role("link", name="Model card")
    with context.expect_page() as opened:
        link.click()
    card = opened.value
    card.wait_for_load_state()
    assert card.locator("h1").inner_text() == "Model card: fold0"
    assert card.get_by_role("heading", name="Intended use").is_visible()
    # Its style is allowed, a script in it would not be.
    assert card.locator("section").first.evaluate("element => getComputedStyle(element).borderRadius") == "10px"
    assert card.title() == "Model card: fold0"
    for width in (390, 1280):
        card.set_viewport_size({"width": width, "height": 800})
        assert card.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert problems == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl_has_both_ways(address):
    address, path = address

    def curl(*options):
        command = ["curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    assert curl(f"{address}/about") == "401"
    assert curl("--user", f"ali:{SECRET}", f"{address}/about") == "200"
    assert curl("--anyauth", "--user", f"ali:{SECRET}", f"{address}/about") == "200"
    assert curl("--user", f"ali:{SECRET}", "--form", f"file=@{path}", f"{address}/predict") == "200"
    assert (
        curl("--header", "Authorization: Bearer wrong-wrong", "--form", f"file=@{path}", f"{address}/predict") == "401"
    )
