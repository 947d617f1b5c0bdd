"""The site as its readers use it, in a browser and from files."""

import csv
import json
import re
from importlib.resources import files

import pytest
from randomized_defense_bench.leaderboard import RESULTS, records, site
from randomized_defense_bench.leaderboard.__main__ import main
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.formats import format_difference
from samples import COMPLETE, row

from randomized_defense_bench import metrics

pytestmark = pytest.mark.browser

RANK, DEFENSE, WORST, VERDICT, PLACE = 2, 3, 4, 7, 10
DIGITS = "#dataset=digits&budget=quick&norm=Linf&eps=0.25"
NAMES = ("ulm-10", "clm-10", "ulm-adv-4", "single-1")
COMPARED = DIGITS + "".join(f"&compare=digits-quick-Linf-0.25-{name}-c6d7" for name in NAMES)


@pytest.fixture(scope="module")
def ranking():
    """The ranking that `DIGITS` shows."""
    board = Board([r for r in records.read_all(RESULTS) if r.case.dataset == "digits"])
    return board.sections[0].rankings[0]


def test_the_first_view_is_the_first_ranking_and_headers_sort_it_by_keyboard_too(page):
    page.open()
    assert "one-ranking" in page.run("return document.documentElement.className")
    first, *others = page.run("return rows")
    place = [first[name] for name in ("dataset", "budget", "norm", "eps")]
    ranked = [
        row for row in others if [*map(row.get, ("dataset", "budget", "norm", "eps"))] == place
    ]
    assert page.column(DEFENSE) == [row["label"] for row in (first, *ranked)]

    page.open(DIGITS)
    header = page.find(f"#board th:nth-child({WORST})")
    header.click()

    def worst():
        return [float(text.strip("≤").partition("±")[0]) for text in page.column(WORST)]

    page.until(lambda: header.get_attribute("aria-sort") == "ascending")
    assert worst() == sorted(worst())
    header.find_element("css selector", "[role=button]").send_keys("\n")
    page.until(lambda: header.get_attribute("aria-sort") == "descending")
    assert worst() == sorted(worst(), reverse=True)
    assert worst()[0] > worst()[-1]


def test_filters_choose_rows_and_say_when_none_is_left(page):
    page.open()
    page.choose("dataset", "digits")
    assert len(page.column(DEFENSE)) == 8
    page.choose("verdict", "collapses")
    assert {*page.column(VERDICT)} == {"collapses"}
    page.choose("search", "ulm-adv")
    assert page.column(DEFENSE) == ["ulm-adv"]
    page.choose("search", "x")
    assert "No row matches" in page.find("#board tbody").text
    page.find("[type=reset]").click()
    page.until(lambda: len({*page.column(PLACE)}) > 3)


def test_a_link_restores_the_view(page):
    page.open()
    page.choose("dataset", "digits")
    page.choose("random", "which")
    page.find(f"#board th:nth-child({DEFENSE})").click()
    page.until(lambda: page.column(DEFENSE)[0] == "clm")
    page.tick("ulm")
    page.tick("clm")
    seen = page.column(DEFENSE), page.find("#comparison").text
    assert seen[0] == ["clm", "clm-adv", "ulm", "ulm-adv"]
    page.open(f"#{page.driver.current_url.partition('#')[2]}")
    assert (page.column(DEFENSE), page.find("#comparison").text) == seen


def test_two_ticked_rows_show_the_paired_differences_that_metrics_computes(page, ranking):
    first, second = (
        next(e.row for e in ranking.entries if e.row.label == label) for label in ("clm", "ulm")
    )
    page.open(DIGITS)
    page.tick("ulm")
    assert "Tick another row" in page.find("#comparison").text
    page.tick("clm")
    cells = [
        cell.text
        for cell in page.find("#comparison tbody tr").find_elements("css selector", "th, td")
    ]
    assert cells == [
        "clm minus ulm",
        format_difference(metrics.shared_difference(first.worst_by_seed, second.worst_by_seed)),
        format_difference(metrics.shared_difference(first.claimed_by_seed, second.claimed_by_seed)),
    ]
    (answers, *_) = first.worst_by_seed.values()
    canvas = page.find("#comparison canvas")
    size = (int(canvas.get_attribute(name)) for name in ("height", "width"))
    assert (*size,) == answers.correct.shape
    page.tick("single")
    page.tick("noise")
    assert len(page.cells("#comparison tbody tr")) == 6
    assert not page.find('#board input[aria-label^="Compare clm-adv on"]').is_enabled()


def test_downloads_hold_the_rows_that_are_shown(page, tmp_path):
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.open(DIGITS)
    page.choose("verdict", "collapses")
    shown = page.column(DEFENSE)
    texts = {}
    for kind in ("csv", "json", "tex", "bib"):
        path = tmp_path / f"leaderboard.{kind}"
        page.find(f".downloads [value={kind}]").click()
        page.until(path.exists)
        texts[kind] = path.read_text()
    rows = [*csv.DictReader(texts["csv"].splitlines())]
    assert [row["label"] for row in rows] == shown
    assert float(rows[0]["worst low"]) <= float(rows[0]["worst"]) <= float(rows[0]["worst high"])
    assert [row["label"] for row in json.loads(texts["json"])] == shown
    lines = [line for line in texts["tex"].splitlines() if line.endswith(r"\\")]
    assert [line.split(" & ")[1] for line in lines] == ["label", *shown]
    assert {line.count("&") for line in lines} == {5}
    assert re.findall(r"^@misc\{(.+),$", texts["bib"], re.M)
    assert texts["bib"].count("{") == texts["bib"].count("}")


AXE = "const done = arguments[0]; axe.run().then((found) => done(found.violations));"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_is_accessible_and_raises_no_error(page, theme):
    features = [{"name": "prefers-color-scheme", "value": theme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    axe = (files("axe_core_python") / "axe.min.js").read_text("utf-8")
    for view, name in (
        ("", "index.html"),
        (COMPARED, "index.html"),
        ("", "LEADERBOARD.html"),
        ("", "PAPER.html"),
        ("", "defenses/clm.html"),
    ):
        page.open(view, name)
        page.run(axe)
        violations = page.run(AXE, wait=True)
        told = [(v["id"], [node["html"][:200] for node in v["nodes"]][:3]) for v in violations]
        assert not told, (view, name)
    assert page.errors() == []


def test_it_is_a_plain_table_without_scripts_and_fits_a_phone(page):
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.driver.get((page.folder / "index.html").as_uri())
    assert len(page.column(DEFENSE)) > 20
    assert not page.find("form").is_displayed()
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for view, name in (("", "index.html"), (COMPARED, "index.html"), ("", "defenses/clm.html")):
        page.open(view, name)
        assert page.run("return document.documentElement.scrollWidth") == 390


def test_every_link_leads_to_a_file_and_all_are_small(folder):
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in written) < 3_000_000
    for path in folder.rglob("*.html"):
        links = re.findall(r'(?:href|src)="(?!https?:)([^"]+)"', path.read_text())
        assert links
        for link in links:
            target, _, anchor = link.partition("#")
            page = path.parent / target if target else path
            assert page.is_file(), (path, link)
            assert not anchor or f'id="{anchor}"' in page.read_text(), (path, link)


def test_five_thousand_records_load_in_two_seconds(page, tmp_path, monkeypatch):
    attacks = (*COMPLETE, *(f"own-{k}" for k in range(14)))
    made = [
        record
        for eps in (0.1, 0.2, 0.3, 0.4, 0.5)
        for k in range(48)
        for record in row(f"defense-{k}", k % 5, attacks=attacks, eps=eps, images=100)
    ]
    assert len(made) >= 5000
    monkeypatch.setattr(site, "board_of", lambda _: Board(made))
    assert main(["--results", str(tmp_path), "--site", str(tmp_path / "site")]) == 0
    page.folder = tmp_path / "site"
    loads = []
    for _ in range(3):
        page.open()
        loads.append(float(page.run("return document.documentElement.dataset.ready")))
    # Other tests may run beside this one.
    assert min(loads) < 2000, loads
    assert "of 240 rows" in page.find(".dt-info").text
