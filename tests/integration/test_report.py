# SPDX-License-Identifier: Apache-2.0
"""The report in a browser: headless Chromium opens what was built, on wide and narrow screens, light and dark."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from nabla.core.artifacts import DIGEST_GROUPS, IMAGE_TOOLS, RELEASED_IMAGES, REPORT
from nabla.core.paths import IMAGES, relative
from nabla.fs import ext3
from nabla.packages import catalog
from nabla.policy import model
from nabla.release import contents, digests
from nabla.report import benchmarks, html, render, tables
from nabla.report.graph import reduce
from nabla.sources import recipe

SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Files of a release that the page itself, not one of its tables, links to.
RELEASE_FILES = (
    "SHA256SUMS",
    "SHA256SUMS.sig",
    "keys/allowed_signers",
    "keys/nabla.rsa.pub",
    "licenses",
    "provenance/nabla.intoto.json",
    "sbom/nabla.cdx.json",
    "sbom/nabla.spdx.json",
)
NARROW, PHONE, WIDE = 360, 390, 1280
AA = 4.5  # contrast of small text, WCAG 2.1, 1.4.3

# Contrast of each text with its background. Only the graph's lines are partly transparent.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const part = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const contrasts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    if (svg && element.tagName !== "text") continue;
    const box = svg ? element.parentElement.querySelector("rect") : null;
    const back = light(box ? parse(getComputedStyle(box).fill) : behind(element));
    const front = light(parse(svg ? style.fill : style.color));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    contrasts.push([Math.round(ratio * 100) / 100, walker.currentNode.textContent.trim().slice(0, 40)]);
  }
  return contrasts;
}"""


@dataclass
class Opened:
    """A page in the browser with all its requests and messages."""

    page: Page
    requests: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def path() -> Path:
    if not REPORT.is_file():
        pytest.fail(f"{relative(REPORT)} is missing; hint: ./doit.sh report", pytrace=False)
    return REPORT


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is missing: it shows the report; hint: install chromium", pytrace=False)
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=SWITCHES)
        yield running
        running.close()


def opened(browser: Browser, path: Path, width: int = WIDE, scheme: str = "light", *, script: bool = True) -> Opened:
    """Open the page in a temporary profile."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        java_script_enabled=script,
    )
    opened_page = Opened(context.new_page(), [], [])
    opened_page.page.on("request", lambda request: opened_page.requests.append(request.url))
    opened_page.page.on("console", lambda message: opened_page.complaints.append(f"{message.type}: {message.text}"))
    opened_page.page.on("pageerror", lambda error: opened_page.complaints.append(str(error)))
    opened_page.page.goto(path.as_uri())
    return opened_page


@pytest.fixture(scope="module")
def wide(browser: Browser, path: Path) -> Page:
    """The page on a wide screen; tests do not change it."""
    return opened(browser, path).page


def links(page: Page) -> list[str]:
    """Return the literal addresses of all links."""
    hrefs: list[str] = page.locator("a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    return hrefs


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_page_is_silent_and_alone(browser: Browser, path: Path, width: int, scheme: str) -> None:
    opened_page = opened(browser, path, width, scheme)
    opened_page.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    opened_page.page.mouse.wheel(0, 100_000)
    opened_page.page.wait_for_load_state("networkidle")
    assert opened_page.complaints == []
    assert [url for url in opened_page.requests if not url.startswith("data:")] == [path.as_uri()]
    assert opened_page.page.title().startswith("Nabla Linux ")


def test_links_lead_somewhere(wide: Page) -> None:
    homepages = {recipe.load(name).homepage for name in recipe.names()}
    inside = set(wide.locator("[id]").evaluate_all("all => all.map(each => each.id)"))
    hrefs = links(wide)
    assert len(hrefs) > 100
    released = {*contents.files(), *contents.FOLDERS, *RELEASE_FILES}
    released |= {f"images/{name}.ext3.zst" for name in RELEASED_IMAGES}
    for href in hrefs:
        if href.startswith("#"):
            assert unquote(href[1:]) in inside
        elif href.startswith("../"):
            assert unquote(href[3:]) in released
        else:
            assert href in homepages
            assert urlsplit(href).scheme == "https"


def test_links_of_a_release_resolve(browser: Browser) -> None:
    page = contents.folder().path / "report" / "index.html"
    assert page.is_file(), f"{relative(page)} is missing; hint: ./doit.sh release"
    opened_page = opened(browser, page)
    files = [href for href in links(opened_page.page) if href.startswith("../")]
    assert [href for href in files if not (page.parent / unquote(href)).exists()] == []
    assert set(RELEASE_FILES) <= {unquote(href[3:]) for href in files}
    assert opened_page.complaints == []


def test_lines_that_check_a_release_work(browser: Browser) -> None:
    page = contents.folder().path / "report" / "index.html"
    lines = opened(browser, page).page.locator("pre").inner_text()
    result = subprocess.run(
        ["sh", "-ec", lines], cwd=page.parent.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert 'Good "file" signature for nabla' in result.stdout


def test_charts_are_drawn(wide: Page) -> None:
    built = [catalog.read_build_record(name) for name in catalog.names()]
    times = tables.time_chart(benchmarks.read_build(benchmarks.BUILD))
    wanted = {"chart-sizes": None, "chart-packages": len(built), "chart-times": len(times.rows)}
    assert set(wide.locator("figure.chart").evaluate_all("all => all.map(each => each.id)")) == set(wanted)
    wanted["chart-sizes"] = wide.locator("#products tbody tr").count()
    for name, number in wanted.items():
        bars = wide.locator(f"#{name} rect.fill")
        sizes: list[list[float]] = bars.evaluate_all(
            "all => all.map(each => each.getBoundingClientRect()).map(box => [box.width, box.height])"
        )
        assert len(sizes) == number == wide.locator(f"#{name} tbody tr").count()
        assert all(width > 1 and height > 5 for width, height in sizes)
        assert all(text.strip() for text in wide.locator(f"#{name} svg title").all_text_contents())
    drawn = wide.locator("#chart-times rect.fill").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    seconds = [row.cells[1].sort or 0 for row in times.rows]
    for width, took in zip(drawn, seconds, strict=True):
        assert width / drawn[0] == pytest.approx(took / seconds[0], abs=0.01)


def test_sizes_are_those_of_the_files(wide: Page) -> None:
    """The used size of a file system is e2fsck's."""
    for name in RELEASED_IMAGES:
        output = ext3.check(IMAGES / f"{name}.ext3", tools=IMAGE_TOOLS.path)
        used, whole = map(int, re.findall(r"(\d+)/(\d+) blocks", output)[-1])
        assert tables.used_bytes(IMAGES / f"{name}.ext3") == used * 4096
        words = f"{html.size(used * 4096)} of {html.size(whole * 4096)}"
        assert words in wide.locator("#chart-sizes").inner_text()


def test_graph_is_drawn(wide: Page) -> None:
    needs = reduce(render.needs(catalog.names()))
    boxes: dict[str, list[float]] = dict(
        wide.locator(".graph a").evaluate_all(
            """all => all.map(each => {
              const box = each.querySelector("rect").getBoundingClientRect();
              const text = each.querySelector("text").getBoundingClientRect();
              return [each.textContent, [box.left, box.top, box.right, box.bottom, text.left, text.right]];
            })"""
        )
    )
    assert set(boxes) == set(needs)
    for left, _, right, _, begin, end in boxes.values():
        assert left < begin < end < right, "the name fits into its box"
    for one, other in combinations(boxes.values(), 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    lengths = wide.locator(".graph path").evaluate_all("all => all.map(each => each.getTotalLength())")
    assert len(lengths) == sum(map(len, needs.values()))
    assert min(lengths) > 10


def test_tables_tell_of_all(wide: Page) -> None:
    assert wide.locator("#calls tbody tr").count() == len(model.load().calls)
    assert wide.locator("#pie-table tbody tr").count() == len(RELEASED_IMAGES)
    assert wide.locator("#syscalls-table tbody tr").count() == len(RELEASED_IMAGES)
    sums = sum(len(digests.read(group)) for group in DIGEST_GROUPS)
    assert wide.locator("#digests-table tbody tr").count() == sums
    parts = sum(len(catalog.read_build_record(name).parts) for name in catalog.names())
    assert wide.locator("#packages-table tbody tr").count() == parts


@pytest.mark.parametrize("width", [NARROW, PHONE, WIDE])
def test_nothing_is_wider_than_the_screen(browser: Browser, path: Path, width: int) -> None:
    page = opened(browser, path, width).page
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    beside = page.evaluate(
        """() => [...document.body.querySelectorAll("*")]
          .filter(each => !each.closest(".scroll, pre, .skip") && each.checkVisibility())
          .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
          .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert beside == []
    regions = page.locator(".scroll, pre").evaluate_all("all => all.map(each => getComputedStyle(each).overflowX)")
    assert set(regions) == {"auto"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(browser: Browser, path: Path, scheme: str) -> None:
    page = opened(browser, path, WIDE, scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 1000
    assert [each for each in contrasts if each[0] < AA] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")


def test_page_says_what_its_parts_are(wide: Page) -> None:
    assert wide.locator("html[lang=en]").count() == 1
    assert [wide.locator(name).count() for name in ("main", "header", "footer", "nav[aria-label]", "h1")] == [1] * 5
    levels = wide.locator("h1, h2, h3, h4").evaluate_all("all => all.map(each => Number(each.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = wide.locator("[id]").evaluate_all("all => all.map(each => each.id)")
    assert len(ids) == len(set(ids))
    for names in wide.locator("[aria-labelledby]").evaluate_all(
        "all => all.map(e => e.getAttribute('aria-labelledby'))"
    ):
        assert set(names.split()) <= set(ids)
    for selector in (
        "table:not(:has(caption))",
        "thead th:not([scope=col])",
        "tbody th:not([scope=row])",
        "tbody tr:not(:has(> th:first-child))",
        "svg:not(:has(> title))",
        ".scroll:not([role=region][tabindex='0'])",
        "section:not([aria-labelledby])",
        "a:not([href])",
    ):
        assert wide.locator(selector).count() == 0, selector
    nameless = wide.locator("a, button, summary").evaluate_all("all => all.filter(e => !e.textContent.trim()).length")
    assert nameless == 0


def test_columns_can_be_sorted(browser: Browser, path: Path) -> None:
    page = opened(browser, path).page
    page.locator("#packages summary").first.click()
    head = page.locator("#packages-table thead th").nth(4)

    def sizes() -> list[int]:
        numbers: list[int] = page.locator("#packages-table td.number").evaluate_all("a => a.map(e => +e.dataset.sort)")
        return numbers

    before = sizes()
    head.locator("button").press("Enter")  # by keyboard
    assert sizes() == sorted(before) != before
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert sizes() == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"


def test_links_unfold_what_they_lead_to(browser: Browser, path: Path) -> None:
    page = opened(browser, path).page
    row = page.locator("#package-zlib")
    assert not row.is_visible()
    page.locator(".graph a[href='#package-zlib']").click()
    row.wait_for(state="visible")
    assert page.evaluate("location.hash") == "#package-zlib"


def test_page_is_whole_without_its_script(browser: Browser, path: Path, wide: Page) -> None:
    plain = opened(browser, path, script=False)
    assert plain.complaints == []
    rows = "tbody tr"
    assert plain.page.locator(rows).count() == wide.locator(rows).count()
    assert plain.page.locator("rect.fill").count() == wide.locator("rect.fill").count()
    assert plain.page.locator("button").count() == 0


def test_foreign_scripts_do_not_run(browser: Browser, path: Path) -> None:
    """The page's security policy blocks scripts even if escaping failed."""
    opened_page = opened(browser, path)
    failures: list[str | None] = []
    opened_page.page.on("requestfailed", lambda request: failures.append(request.failure))
    opened_page.page.evaluate(
        """() => { const evil = document.createElement("script"); evil.textContent = "document.title = 'owned'";
          document.body.append(evil); const image = new Image(); image.src = "https://example.invalid/x.png";
          document.body.append(image); }"""
    )
    opened_page.page.wait_for_timeout(200)
    assert opened_page.page.title().startswith("Nabla Linux ")
    assert len([each for each in opened_page.complaints if "Content Security Policy" in each]) >= 2
    assert failures == ["csp"], "the browser did not even try"


def test_page_can_be_printed(browser: Browser, path: Path) -> None:
    page = opened(browser, path).page
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF-")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") > 5
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
