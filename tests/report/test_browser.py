"""The page in a browser: it opens, asks nobody for anything, and what is looked for is found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jwstdask.report.data import compare, read_program
from jwstdask.report.html import write_page
from tests.report.browser import CHROMIUM, Browser
from tests.report.programs import NASTY, write_program

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.xdist_group("browser"),
]

MANY = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.close()


@pytest.fixture(scope="module")
def many(module_folder) -> Path:
    """The page of a program of ten thousand exposures, 11 of which failed."""
    folder = module_folder("many")
    names = write_program(folder, MANY)
    (folder / "names.json").write_text(json.dumps(names))
    return Path(write_page(folder / "report.html", read_program(folder)))


@pytest.fixture
def page(browser: Browser, many: Path) -> Browser:
    browser.size(1300, 900)
    browser.open(many)
    return browser


COUNT = "document.getElementById('count').textContent"
ROWS = "[...document.querySelectorAll('#exposures tr.row td.name')].map(cell => cell.textContent)"


def search(page: Browser, text: str) -> None:
    page.run(
        "(() => { const field = document.querySelector('input[type=search]');"
        f"field.value = {json.dumps(text)}; field.dispatchEvent(new Event('input')); }})()"
    )


def click(page: Browser, selector: str, number: int = 0) -> None:
    page.run(f"document.querySelectorAll({json.dumps(selector)})[{number}].click()")


def choose(page: Browser, label: str, value: str) -> None:
    page.run(
        f"(() => {{ const field = document.querySelector('select[aria-label=\"{label}\"]');"
        f"field.value = {json.dumps(value)}; field.dispatchEvent(new Event('change')); }})()"
    )


def test_many_exposures(page: Browser, many: Path) -> None:
    assert many.stat().st_size < 30e6
    assert page.problems == [] and page.requests == [many.as_uri()]
    assert page.run(COUNT) == "1 to 50 of 10,000"
    figures = page.run("[...document.querySelectorAll('.figure')].map(item => item.textContent)")
    assert "10,000exposures" in figures and "9,989done" in figures and "11failed tasks" in figures
    # The page is as long as its rows, not as all exposures.
    assert page.run("document.querySelectorAll('*').length") < 6_000


def test_nothing_of_the_data_is_run(page: Browser) -> None:
    assert page.run("window.hacked") is None
    assert page.run("document.querySelectorAll('img, iframe, object').length") == 0
    assert page.run("document.scripts.length") == 2
    assert NASTY.replace("/", "") in page.run(ROWS)[0]
    assert NASTY in page.run("document.querySelector('#failures .bad').textContent")
    click(page, "#exposures tr.row button")
    assert page.run("window.hacked") is None and page.problems == []
    # Even a script that got into the page would not be run, and nothing be fetched.
    page.run("(() => { const s = document.createElement('script'); s.textContent = 'window.hacked = 3'; "
             "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; })()")  # fmt: skip
    assert page.run("window.hacked") is None
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_search(page: Browser, many: Path) -> None:
    names = json.loads((many.parent / "names.json").read_text())
    search(page, "nrcb4 jw01234003001_05101")
    page.wait(f"{COUNT}.includes('10,000 in all')")
    expected = [name for name in names if "nrcb4" in name and "jw01234003001_05101" in name]
    assert page.run(ROWS) == expected and len(expected) > 3
    search(page, "no such thing")
    page.wait(f"{COUNT} === ''")
    assert "No exposure is like that" in page.run("document.querySelector('#exposures tbody').textContent")
    search(page, "")
    page.wait(f"{COUNT}.endsWith('of 10,000')")


def test_failures_are_found(page: Browser, many: Path) -> None:
    names = json.loads((many.parent / "names.json").read_text())
    choose(page, "state", "failed")
    assert page.run(ROWS) == [name for index, name in enumerate(names) if index % 997 == 3]
    # Alike ones are told once.
    assert page.run("document.querySelectorAll('#failures .card').length") == 1
    assert page.run("document.querySelector('#failures .card strong').textContent").startswith("11 times")
    page.run("[...document.querySelectorAll('#failures button.plain')][4].click()")
    wanted = names[3 + 4 * 997]
    assert page.run(ROWS) == [wanted]
    detail = page.run("document.querySelector('#exposures tr.detail').textContent")
    assert "rows 128:256 are missing" in detail and "end of the log" in detail and "not finished" in detail


def test_sort_and_pages(page: Browser) -> None:
    def column(number: int) -> list[float]:
        texts = page.run(
            f"[...document.querySelectorAll('#exposures tr.row')].map(row => row.children[{number}].textContent)"
        )
        return [float(re.sub(r"[^0-9.]", "", text)) for text in texts]

    heads = page.run("[...document.querySelectorAll('#exposures thead th')].map(item => item.textContent)")
    memory = heads.index("memory")
    click(page, "#exposures thead button", memory)
    first = column(memory)
    assert first == sorted(first, reverse=True) and first[0] == 900
    assert page.run("document.querySelectorAll('#exposures th[aria-sort=descending]').length") == 1
    click(page, ".pager button", 2)
    assert page.run(COUNT) == "51 to 100 of 10,000" and column(memory)[0] <= first[-1]
    click(page, ".pager button", 3)
    assert page.run(COUNT) == "9,951 to 10,000 of 10,000"
    assert page.run("[...document.querySelectorAll('.pager button')].map(b => b.disabled)") == [False] * 2 + [True] * 2
    click(page, "#exposures thead button", memory)
    assert column(memory) == sorted(column(memory)) and page.run(COUNT).startswith("1 to 50")
    choose(page, "rows of a page", "200")
    assert len(page.run(ROWS)) == 200
    choose(page, "detector", "nrcb2")
    assert page.run(COUNT) == "1 to 200 of 1,250 (10,000 in all)"


def test_details_and_timeline(page: Browser, many: Path) -> None:
    names = json.loads((many.parent / "names.json").read_text())
    search(page, names[107])
    page.wait(f"{COUNT}.startsWith('1 to 1 of')")
    click(page, "#exposures tr.row button")
    assert page.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    detail = page.run("document.querySelector('#exposures tr.detail').textContent")
    for wanted in ("rejection_threshold=5", "pars-jumpstep_0102.asdf", "JUMP_DET", "skip is set", "RuntimeWarning"):
        assert wanted in detail
    links = page.run("[...document.querySelectorAll('tr.detail a')].map(item => item.getAttribute('href'))")
    assert f"./{names[107]}_cal.fits" in links and f"./logs/{names[107]}.log" in links
    painted = "document.querySelector('canvas').toDataURL()"
    before = page.run(painted)
    click(page, ".timeline button", 0)
    click(page, ".timeline button", 3)
    assert page.run(painted) != before
    assert "20,0" in page.run("document.querySelector('canvas').getAttribute('aria-label')")
    assert page.problems == []


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_fits_the_screen_and_can_be_read(browser: Browser, many: Path, width: int, dark: bool) -> None:
    browser.size(width, 900, dark)
    browser.open(many)
    browser.run("document.querySelectorAll('#exposures tr.row button')[3].click()")
    assert browser.run("document.documentElement.scrollWidth") <= width
    colors = browser.run(
        "[...document.querySelectorAll('p, td, b, a, .state, .soft, th button')].map(item => "
        "[getComputedStyle(item).color, (item.closest('.card, .figure, .exposures') || document.body)]"
        ".map(part => typeof part === 'string' ? part : getComputedStyle(part).backgroundColor).join('|'))"
    )
    assert len(set(colors)) > 3
    for pair in set(colors):
        ink, paper = (luminance(part) for part in pair.split("|"))
        high, low = max(ink, paper), min(ink, paper)
        # WCAG 2: contrast of text, level AA.
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair


def luminance(color: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, by the definition of WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_few_exposures_beside_an_earlier_run(browser: Browser, tmp_path: Path) -> None:
    for name, seed in (("old", 1), ("new", 2)):
        write_program(tmp_path / name, 3, seed=seed, nasty=False, fails=lambda index: False, end=name == "old")
    old, new = (read_program(tmp_path / name) for name in ("old", "new"))
    path = write_page(tmp_path / "new" / "report.html", new, {**compare(old, new), "lines": [["x", "y"]]})
    browser.open(path)
    assert browser.problems == []
    # So few are shown whole.
    assert browser.run("document.querySelectorAll('#exposures tr.detail').length") == 3
    found = browser.run("document.getElementById('comparison').textContent")
    assert "0 the same, 13 changed, 0 new, 0 no more" in found
    assert "was killed" in browser.run("document.getElementById('summary').textContent")


def test_an_empty_program(browser: Browser, tmp_path: Path) -> None:
    write_program(tmp_path, 0)
    browser.open(write_page(tmp_path / "report.html", read_program(tmp_path)))
    assert browser.problems == [] and "0exposures" in browser.run("document.body.textContent")
