"""Headless Chromium for tests of a page, or the reason why there is none."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str:
    """Why no browser can be driven; empty where one can."""
    if not CHROMIUM or not DRIVER:
        return "chromium and chromedriver are not installed (Debian: chromium chromium-driver)"
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed"
    return ""


@contextlib.contextmanager
def opened(folder, width=1280, height=900, *, dark=False):
    """A browser with a new profile in `folder`; its window, and whether it prefers dark pages."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        resize(driver, width, height, dark=dark)
        yield driver
    finally:
        driver.quit()


def resize(driver, width, height, *, dark=False):
    """The size of the page, as a phone below 600 pixels, and the colours that it prefers."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # no click while it scrolls
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def requests(driver):
    """The addresses that pages in files asked for since the last call, their own among them."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = [event["params"] for event in sent]
    return [one["request"]["url"] for one in asked if one["documentURL"].startswith("file:")]
