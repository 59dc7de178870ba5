"""The dashboard in a real browser: by keyboard, on a phone, light and dark, and checked by axe."""

import shutil
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.admin.conftest import TOKEN, Dashboard

AXE = files("axe_core_python").joinpath("axe.min.js").read_text()
WAIT_S = 15.0


@pytest.fixture(scope="module")
def browser(dashboard: Dashboard) -> Iterator[Chrome]:
    """Headless Chromium, logged in."""
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    assert driver, "chromedriver is missing: scripts/system-tools"
    assert program, "chromium is missing: scripts/system-tools"
    options = ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(30)
    chrome.get(dashboard.url)
    assert chrome.current_url.endswith("/login")
    chrome.switch_to.active_element.send_keys(TOKEN + Keys.ENTER)
    WebDriverWait(chrome, WAIT_S).until(lambda one: one.find_elements(By.ID, "live"))
    yield chrome
    chrome.quit()


def console(browser: Chrome) -> list[dict[str, Any]]:
    """What was written to the console since it was asked for last."""
    entries: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return entries


@pytest.fixture(autouse=True)
def clean_console(browser: Chrome) -> Iterator[None]:
    """No script error, and nothing that the Content-Security-Policy had to block."""
    console(browser)
    yield
    assert [entry for entry in console(browser) if entry["level"] in ("SEVERE", "WARNING")] == []


def look(browser: Chrome, width: int = 1280, dark: bool = False) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def a_call(dashboard: Dashboard) -> dict[str, Any]:
    """An answered call with several attempts."""
    rows = dashboard.store.calls({"outcome": "answered"}, 300, None)
    return dict(max(rows, key=lambda row: int(row["attempts"])))


def pages(dashboard: Dashboard) -> list[str]:
    return ["?range=1h", "calls", f"calls/{a_call(dashboard)['key']}#m3", "diagnosis?range=1h", "login", "none"]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desktop light", "phone dark"])
def test_axe_finds_nothing(browser: Chrome, dashboard: Dashboard, width: int, dark: bool) -> None:
    look(browser, width, dark)
    for page in pages(dashboard):
        browser.get(dashboard.url + page)
        browser.execute_script(AXE)
        result = browser.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
        found = [
            (one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in result["violations"]
        ]
        assert found == [], page
        assert len(result["passes"]) > 10
    console(browser)  # the page that is not there is an error in the console


def test_a_phone_needs_no_sideways_scrolling(browser: Chrome, dashboard: Dashboard) -> None:
    look(browser, 390)
    for page in pages(dashboard)[:-1]:
        browser.get(dashboard.url + page)
        widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], page


def test_by_keyboard_from_a_call_to_a_changed_line(browser: Chrome, dashboard: Dashboard) -> None:
    look(browser)
    call = a_call(dashboard)
    browser.get(f"{dashboard.url}calls?q={call['call_sid']}")
    browser.find_element(By.CSS_SELECTOR, "table.calls a").send_keys(Keys.ENTER)
    WebDriverWait(browser, WAIT_S).until(lambda one: one.find_elements(By.CSS_SELECTOR, "svg.ladder"))
    rungs = browser.find_elements(By.CSS_SELECTOR, "svg.ladder a")
    invite = next(one for one in rungs if (one.get_attribute("aria-label") or "").startswith("INVITE to the target"))
    number = invite.get_attribute("data-message")
    browser.execute_script("arguments[0].focus()", invite)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    WebDriverWait(browser, WAIT_S).until(
        lambda one: one.execute_script("return document.activeElement.parentElement.id") == f"m{number}"
    )
    message = browser.find_element(By.ID, f"m{number}")
    assert message.get_attribute("open")
    added = {row.text for row in message.find_elements(By.CSS_SELECTOR, ".diff tr.new")}
    assert any("X-Trunkline-Call-ID" in text and "rule:twilio-openai/call-id-header" in text for text in added)
    assert "X-Trunkline-Call-ID" in message.find_element(By.TAG_NAME, "pre").text


def test_skip_link_is_first(browser: Chrome, dashboard: Dashboard) -> None:
    look(browser)
    browser.get(dashboard.url)
    ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.switch_to.active_element.text == "Skip to content"
    assert browser.switch_to.active_element.is_displayed()


def test_the_overview_keeps_itself_fresh(browser: Chrome, dashboard: Dashboard) -> None:
    look(browser)
    browser.get(dashboard.url)
    browser.execute_script("document.querySelector('.tile').dataset.old = '1'")
    WebDriverWait(browser, WAIT_S).until(lambda one: not one.find_elements(By.CSS_SELECTOR, ".tile[data-old]"))
    assert "Calls in progress" in browser.find_element(By.ID, "live").text


def test_search_by_a_whole_number_finds_masked_calls(browser: Chrome, dashboard: Dashboard) -> None:
    look(browser)
    browser.get(f"{dashboard.url}calls")
    browser.find_element(By.ID, "q").send_keys("+1 555 010 0001" + Keys.ENTER)
    WebDriverWait(browser, WAIT_S).until(lambda one: "q=" in one.current_url)
    assert len(browser.find_elements(By.CSS_SELECTOR, "table.calls tbody a")) == 50
    assert "15550100001" not in browser.page_source.replace("555 010", "")


def test_log_out(browser: Chrome, dashboard: Dashboard) -> None:
    look(browser)
    browser.get(dashboard.url)
    browser.find_element(By.CSS_SELECTOR, "header button").click()
    WebDriverWait(browser, WAIT_S).until(lambda one: one.current_url.endswith("/login"))
    browser.get(dashboard.url + "calls")
    assert browser.current_url.endswith("/login")
