"""The overview over a real project: as a browser sees it, and who is turned away."""

import http.client
import os
import shutil
import urllib.parse

import pytest

from .conftest import Whole, wait

NO_BROWSER = shutil.which("chromium") is None or shutil.which("chromedriver") is None


def call(
    whole: Whole,
    method: str,
    path: str,
    *,
    host: str | None = None,
    body: str | None = None,
    **headers: str,
) -> tuple[int, str]:
    link = http.client.HTTPConnection("127.0.0.1", whole.control_port, timeout=10)
    link.putrequest(method, path, skip_host=True)
    link.putheader("Host", host if host is not None else f"127.0.0.1:{whole.control_port}")
    for name, value in headers.items():
        link.putheader(name.replace("_", "-"), value)
    if body is not None:
        link.putheader("Content-Length", str(len(body)))
        link.putheader("Content-Type", "application/x-www-form-urlencoded")
    link.endheaders(body.encode() if body else None)
    answer = link.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "10.evil.com",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "0.0.0.0",
        "",
        "127.0.0.1:1",
    ],
)
def test_another_host_is_turned_away(whole: Whole, host: str) -> None:
    assert call(whole, "GET", "/", host=host)[0] == 421


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.com"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}, {}],
)
def test_a_form_of_another_site_decides_nothing(whole: Whole, headers: dict[str, str]) -> None:
    before = whole.project.ledger.position()
    form = urllib.parse.urlencode({"ref": "homes", "answer": "approved"})
    assert call(whole, "POST", "/answers", body=form, **headers)[0] == 403
    assert whole.project.ledger.position() == before


def test_the_page_shows_the_ring_and_stands_without_script(whole: Whole) -> None:
    status, page = call(whole, "GET", "/")
    assert status == 200
    for word in (
        "Data",
        "Train",
        "Gates",
        "Monitor",
        "Serve",
        "Release",
        f"version {whole.picture()['version']}",
        "run/homes/1",
    ):
        assert word in page
    assert "style=" not in page
    assert call(whole, "DELETE", "/")[0] == 405


@pytest.mark.browser
@pytest.mark.skipif(
    NO_BROWSER and not os.environ.get("GYROSTAT_REQUIRE_SERVERS"),
    reason="needs chromium and chromedriver",
)
def test_a_browser_sees_it_without_an_error_and_it_is_live(whole: Whole) -> None:
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    options = webdriver.ChromeOptions()
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
        "--window-size=1280,1000",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(
        options=options,
        service=webdriver.ChromeService(
            "/usr/bin/chromedriver"
            if not shutil.which("chromedriver")
            else shutil.which("chromedriver")
        ),
    )
    try:
        browser.get(f"http://127.0.0.1:{whole.control_port}/")
        assert "Gyrostat" in browser.title
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0
        before = browser.execute_script(
            "return document.querySelectorAll('#events li').length + document.querySelector('#events').innerText"
        )
        whole.command("hold", "homes", "--reason", "for the page")
        wait(
            "the page to tell of the hold",
            lambda: "for the page" in browser.find_element(By.ID, "events").text,
            20,
        )
        assert before != browser.find_element(By.ID, "events").text
        whole.command("resume", "homes")
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.quit()
