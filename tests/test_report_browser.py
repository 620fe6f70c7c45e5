"""The report in a real browser: it sorts, explains, prints, fits a phone, and can be used by everybody."""

import math

import pytest
from axe_playwright_python.sync_playwright import Axe

import hmcvi.plots as plots
from hmcvi.benchmarks.report import write_report

from . import score_data
from .browser import opened
from .run_folders import write_run

VALUES = {"nuts": [0.10, 0.12], "svi": [0.30, 0.35], "map": [0.20, 0.15]}
"""nll by method and seed; svi is clearly worse than nuts, map is not."""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a run of wine at two seeds, with two figures."""
    folder = tmp_path_factory.mktemp("run") / "wine"
    further = [(seed, m, "gaussian_noise", "auroc, entropy", 0.5, 0.1, 0.0) for seed in (0, 1) for m in VALUES]
    write_run(folder, VALUES, further=further, sets={"gaussian_noise": 36}, verdicts={"nuts": ["converged"] * 2})
    probs, y = score_data.classification(seed=0)
    plots.save(plots.reliability({"nuts": probs}, y), folder / "figures" / "reliability")
    for method in ("nuts", "svi"):
        plots.save(plots.loss_curves({method: [3.0, 2.0, 1.5]}), folder / "figures" / f"loss-{method}")
    return write_report(folder)


def column(page, place):
    """The texts of one column of the scoreboard, from the top."""
    return [cell.inner_text() for cell in page.query_selector_all(f".board tbody tr > :nth-child({place})")]


def heading(page, name):
    """The button that sorts the scoreboard by this column."""
    return page.locator(".board thead button", has_text=name).first


def test_sorts_by_the_better_end_then_the_other_then_as_it_came(report):
    with opened(report) as (page, said):
        as_it_came = column(page, 1)
        assert as_it_came == ["nuts", "svi", "map"]
        heading(page, "nll").click()
        assert column(page, 1) == ["nuts", "map", "svi"]
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
        heading(page, "accuracy").click()
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        assert column(page, 1) == ["nuts", "map", "svi"]
        heading(page, "accuracy").click()
        assert column(page, 1) == ["svi", "map", "nuts"]
        assert page.inner_text("#sorted") == "Sorted by accuracy\xa0↑, ascending"
        heading(page, "accuracy").click()
        assert column(page, 1) == as_it_came
        assert page.locator("th[aria-sort]").count() == 0
        assert said == []


def test_what_is_infinite_or_missing_has_its_place(tmp_path):
    """A score of ∞ is the worst, and what has none stays last, whichever way it is sorted."""
    values = {"nuts": [0.3], "svi": [math.inf], "bbb": [0.1], "map": [math.nan], "laplace": [math.inf]}
    with opened(write_report(write_run(tmp_path / "run", values))) as (page, said):
        heading(page, "nll").click()
        assert column(page, 1) == ["bbb", "nuts", "svi", "laplace", "map"]
        heading(page, "nll").click()
        assert column(page, 1) == ["svi", "laplace", "nuts", "bbb", "map"]
        assert said == []


def test_sorts_by_keyboard_alone(report):
    with opened(report) as (page, said):
        heading(page, "nll").focus()
        page.keyboard.press("Enter")
        assert column(page, 1) == ["nuts", "map", "svi"]
        page.keyboard.press("Space")
        assert column(page, 1) == ["svi", "map", "nuts"]
        assert said == []


def test_best_and_tied_cells_are_marked_in_words_and_signs(report):
    with opened(report) as (page, _):
        place = 1 + [button.inner_text() for button in page.query_selector_all(".board thead button")].index("nll\xa0↓")
        cells = [cell.inner_text() for cell in page.query_selector_all(f".board tbody tr > :nth-child({place})")]
        marks = ["best" if "★" in text else "tied" if "≈" in text else "" for text in cells]
        assert marks == ["best", "", "tied"]
        assert "(best)" in cells[0]
        assert "(tied with the best)" in cells[2]


def test_a_tooltip_says_what_a_score_means_to_pointer_and_keyboard(report):
    with opened(report) as (page, said):
        tip = page.locator("#tip")
        assert tip.is_hidden()
        heading(page, "nll").hover()
        assert "Negative log-likelihood" in tip.inner_text()
        page.mouse.move(0, 0)
        assert tip.is_hidden()
        heading(page, "accuracy").focus()
        assert "most probable class" in tip.inner_text()
        box, width = tip.bounding_box(), page.viewport_size["width"]
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        page.keyboard.press("Escape")
        assert tip.is_hidden()
        assert said == []


def test_every_heading_explains_itself_to_the_keyboard_wherever_it_is(report):
    """Also those that the focus scrolls into view."""
    with opened(report, viewport={"width": 390, "height": 844}) as (page, said):
        headings = page.locator(".board thead button[aria-describedby]")
        assert headings.count() >= 5
        for place in range(headings.count()):
            headings.nth(place).focus()
            page.wait_for_timeout(100)
            about = headings.nth(place).get_attribute("aria-describedby")
            assert page.locator("#tip").inner_text() == page.locator(f"#{about}").inner_text()
        assert said == []


def test_a_tap_on_a_score_explains_it_and_keeps_the_place(report):
    with opened(report, viewport={"width": 390, "height": 844}, has_touch=True) as (page, said):
        term = page.locator("#scores a.term").first
        term.scroll_into_view_if_needed()
        before = page.evaluate("window.scrollY")
        term.tap()
        assert page.evaluate("window.scrollY") == before
        assert page.locator("#tip").is_visible()
        term.tap()  # once more leads to the glossary
        assert page.evaluate("location.hash").startswith("#about-")
        assert said == []


def test_a_figure_is_shown_at_its_full_width_when_pressed(report):
    with opened(report, viewport={"width": 390, "height": 844}) as (page, said):
        button = page.locator("button.paper").first
        before = button.locator("img").bounding_box()["width"]
        button.click()
        assert button.get_attribute("aria-expanded") == "true"
        assert button.locator("img").bounding_box()["width"] > 2 * before
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert said == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_itself_scroll_sideways(report, width):
    with opened(report, viewport={"width": width, "height": 800}) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_accessible(report, scheme, width):
    """No rule of axe-core is broken: contrast, alternative texts, names, headings, keyboard access."""
    with opened(report, color_scheme=scheme, viewport={"width": width, "height": 800}) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        passed = {rule["id"] for rule in found.response["passes"]}
        assert {"color-contrast", "image-alt", "button-name"} <= passed
        assert ("scrollable-region-focusable" in passed) is (width < 1000)  # where the tables are wider than the page


def test_dark_and_light_differ(report):
    grounds = []
    for scheme in ("light", "dark"):
        with opened(report, color_scheme=scheme) as (page, _):
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 28)"]


def test_prints_every_score_and_nothing_to_press(report):
    with opened(report, color_scheme="dark") as (page, said):
        folded = page.locator("details:not([open])").count()
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open], .further)").count() == 0
        page.emulate_media(media="print", color_scheme="light")
        assert page.locator("nav").is_hidden()
        assert page.locator(".press").count() >= 2
        assert not any(page.locator(".press").nth(i).is_visible() for i in range(page.locator(".press").count()))
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert page.pdf().startswith(b"%PDF")
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() == folded
        assert said == []
