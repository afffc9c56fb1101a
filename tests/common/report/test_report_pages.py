"""The pages in a browser: headless Chromium from disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PAGES = ("index", "yogi", "spider")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed (one of {', '.join(CHROMIUM)})")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """A page opened from disk, with everything that its console said."""

    def __init__(self, browser: Any, site: Path, **options: Any) -> None:
        self.site = site
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, name: str, place: str = "") -> Any:
        self.page.goto("about:blank")
        self.page.goto(f"file://{self.site}/{name}.html{place}")
        return self.page

    def choice(self, filter: str, value: str) -> Any:
        """A radio button of a filter."""
        return self.page.locator(f'input[name="{filter}"][value="{value}"]')

    def shown(self, selector: str) -> int:
        return int(self.page.locator(f"{selector}:visible").count())


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Visit]:
    made = Visit(browser, site)
    yield made
    made.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_from_disk_without_a_word_on_the_console(visit: Visit, name: str) -> None:
    page = visit.open(name)
    for image in page.locator("img").all():
        image.evaluate("node => { (node.closest('details') ?? {}).open = true; node.loading = 'eager'; }")
    page.wait_for_load_state("networkidle")
    assert visit.said == []
    assert page.locator("h1").is_visible()
    assert all(url.startswith(("file:", "about:", "data:")) for url in visit.asked)
    loaded = page.evaluate("[...document.images].map(image => image.naturalWidth > 0)")
    assert all(loaded) and (name == "index") == (loaded == [])


@pytest.mark.parametrize("allowed", [True, False], ids=["clipboard", "fallback"])
def test_the_copy_button_copies_what_stands_beside_it(visit: Visit, allowed: bool) -> None:
    if not allowed:
        visit.context.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page = visit.open("yogi")
    row = page.locator("tbody", has_text="mnist_adam_default").first
    button = row.locator("button").first
    button.click()
    playwright.expect(button).to_have_text("Copied")
    command = "python run.py -m entry=yogi.table_ae.mnist_adam_default scale=laptop seed=0,1,2"
    assert row.locator(".command code").first.inner_text() == command
    assert page.locator("#said").inner_text() == f"Copied: {command}"
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<textarea id=into></textarea>')")
    page.locator("#into").focus()
    page.keyboard.press("Control+V")
    assert page.locator("#into").input_value() == command


def test_claims_are_closed_and_a_link_to_one_opens_it(visit: Visit) -> None:
    page = visit.open("yogi")
    assert visit.shown("article.claim .finding") == 0
    page = visit.open("yogi", "#claim-yogi.adam_is_better")
    assert visit.shown("article.claim details[open]") == 1
    assert page.locator("article.claim.refuted .finding").first.is_visible()


def test_a_filter_leaves_only_claims_of_one_verdict(visit: Visit) -> None:
    page = visit.open("yogi")
    assert visit.shown("article.claim") == 4
    visit.choice("claims", "refuted").check()
    assert visit.shown("article.claim") == visit.shown("article.claim.refuted") == 1
    assert page.url.endswith("#claims=refuted")
    visit.choice("claims", "inconclusive").check()
    assert visit.shown("article.claim") == 0
    assert page.get_by_text("No claim matches the filter.").is_visible()


def test_a_filter_leaves_only_measured_rows_or_only_the_others(visit: Visit) -> None:
    page = visit.open("yogi")
    visit.choice("rows", "measured").check()
    assert visit.shown('#table-table_ae tbody[data-rows="measured"]') == 6
    assert visit.shown('tbody[data-rows="not-measured"]') == 0
    visit.choice("rows", "not-measured").check()
    assert visit.shown('#table-table_ae tbody[data-rows="not-measured"]') == 10
    assert visit.shown('tbody[data-rows="measured"]') == 0
    assert "of" in page.locator(".count").inner_text()


def test_filters_stand_in_the_address_and_come_back_from_it(visit: Visit) -> None:
    page = visit.open("yogi", "#claims=supported&rows=measured")
    assert visit.choice("claims", "supported").is_checked()
    assert visit.shown("article.claim") == 2
    visit.choice("claims", "refuted").check()
    page.reload()
    assert visit.choice("claims", "refuted").is_checked()
    assert visit.choice("rows", "measured").is_checked()
    # a link to a place on the page leaves the filters as they are
    page.locator("nav.contents a", has_text="table_ae").click()
    assert visit.shown("article.claim") == 1


def test_filters_work_from_the_keyboard(visit: Visit) -> None:
    page = visit.open("index")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "claims":
            break
    page.keyboard.press("ArrowRight")
    assert page.url.endswith("#claims=supported")
    assert visit.shown("tr.paper") == 1
    page.keyboard.press("Enter")
    assert visit.said == []


def test_the_keyboard_reaches_the_content_at_once_and_shows_where_it_is(visit: Visit) -> None:
    page = visit.open("yogi")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    box = page.locator(".skip").bounding_box()
    assert box is not None and box["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    button = page.locator("button.copy").first
    button.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert button.evaluate("node => getComputedStyle(node).outlineStyle") != "none"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 360, 768])
def test_no_page_scrolls_sideways(browser: Any, site: Path, name: str, width: int) -> None:
    visit = Visit(browser, site, viewport={"width": width, "height": 800})
    page = visit.open(name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    visit.context.close()


def test_dark_mode_has_other_colours_on_page_and_figures(browser: Any, site: Path) -> None:
    colours, pixels = [], []
    for scheme in ("light", "dark"):
        visit = Visit(browser, site, color_scheme=scheme)
        page = visit.open("yogi")
        script = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color"
        colours.append(page.evaluate(script))
        image = page.locator("#table-table_ae img").first
        image.scroll_into_view_if_needed()
        pixels.append(image.screenshot())
        visit.context.close()
    assert colours[0] != colours[1]
    assert pixels[0] != pixels[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, site: Path, scheme: str) -> None:
    visit = Visit(browser, site, color_scheme=scheme)
    page = visit.open("yogi")
    for selector in (
        ".verdict.supported",
        ".verdict.refuted",
        ".badge.scale-laptop",
        ".facts",
        ".source",
        "a",
    ):
        front, back = page.locator(selector).first.evaluate(GROUND)
        assert contrast(front, back) >= 4.5, selector
    visit.context.close()


# the colour of an element's text, and that of the nearest ground behind it
GROUND = """node => {
  const colour = getComputedStyle(node).color;
  while (node && getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)") node = node.parentElement;
  const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  return [parse(colour), parse(getComputedStyle(node).backgroundColor)];
}"""


def contrast(front: list[float], back: list[float]) -> float:
    """The contrast ratio of WCAG 2: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""
    lighter, darker = sorted((luminance(front), luminance(back)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: list[float]) -> float:
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
