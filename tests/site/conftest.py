import tempfile
from pathlib import Path

import pytest
from randomized_defense_bench.leaderboard import RESULTS

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1280,1000",
)


READY = """
const [done] = arguments;
const look = () => (document.documentElement.dataset.ready ? done() : setTimeout(look, 5));
look();
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The site of the committed records."""
    from randomized_defense_bench.leaderboard import site

    return site.write(RESULTS, tmp_path_factory.mktemp("site")).parent


@pytest.fixture(scope="session")
def driver():
    """Debian's chromium, which reaches no network."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
        yield driver
        driver.quit()


class Page:
    """A page of the site in the browser, as its reader sees it."""

    def __init__(self, driver, folder: Path):
        self.driver, self.folder = driver, folder

    def open(self, view="", name="index.html"):
        """Load it anew, and wait until it can be used."""
        self.driver.get("about:blank")
        self.driver.get((self.folder / name).as_uri() + view)
        if name == "index.html":
            self.run(READY, wait=True)
        return self

    def run(self, script, *arguments, wait=False):
        method = self.driver.execute_async_script if wait else self.driver.execute_script
        return method(script, *arguments)

    def find(self, css):
        return self.driver.find_element("css selector", css)

    def choose(self, name, value):
        """Set a filter as a reader does."""
        self.find(f"[name={name}]").send_keys(value)

    def tick(self, label):
        self.find(f'#board input[aria-label^="Compare {label} on"]').click()

    def until(self, condition):
        """Wait for what a click or a key leads to; TimeoutException: it does not come."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 10, 0.02).until(lambda _: condition())

    def cells(self, css):
        return [cell.text for cell in self.driver.find_elements("css selector", css)]

    def column(self, number):
        """The text of a column's visible cells; the boxes are column 1."""
        return self.cells(f"#board tbody tr > :nth-child({number})")

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def page(driver, folder):
    driver.get_log("browser")
    yield Page(driver, folder)
    for command in ("Emulation.setEmulatedMedia", "Emulation.clearDeviceMetricsOverride"):
        driver.execute_cdp_cmd(command, {})
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
