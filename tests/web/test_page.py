"""The page as people see it, in a real browser beside a real service."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.conftest import write
from tests.web.browser import Visitors, take
from tests.web.site import TOKEN, Site
from webpd.model import Failure
from webpd.service import condition
from webpd.watch.health import Health
from webpd.web.page.texts import LANGUAGES, language_for, texts

WELL = {"en": "All is well", "ru": "Всё в порядке"}

LOOKS = [
    pytest.param(width, lang, scheme, id=f"{width}-{lang}-{scheme}")
    for width, lang, scheme in ((1440, "en", "light"), (1440, "ru", "dark"), (360, "en", "dark"), (360, "ru", "light"))
]


def settled(page: Page) -> None:
    """Wait until all that the page shows at first is there."""
    expect(page.locator("#figure figcaption")).to_be_visible(timeout=30_000)
    expect(page.locator("#parts li").first).to_be_visible()


def count(page: Page, number: str) -> int:
    return int(re.sub(r"\D", "", page.locator(f"#{number}").inner_text()) or -1)


def enter_token(page: Page) -> None:
    page.locator("#token").click()
    page.get_by_label("Token").last.fill(TOKEN)
    page.get_by_role("button", name="Use it").click()


@pytest.mark.parametrize(("width", "lang", "scheme"), LOOKS)
def test_it_opens_in_each_language_colour_and_width_without_a_fault_that_axe_finds(
    site: Site, visitors: Visitors, width: int, lang: str, scheme: str
) -> None:
    def look(page: Page) -> tuple[str, str, bool, list[Any]]:
        settled(page)
        expect(page.get_by_role("heading", level=1)).to_have_text(WELL[lang])
        take(page, f"{width}-{lang}-{scheme}")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        faults = Axe().run(page).response["violations"]
        page.locator("details[data-kind=foreign] summary").click()
        expect(page.locator("details[open] .files li")).to_have_count(1)
        page.locator("#token").click()
        faults += Axe().run(page).response["violations"]
        return page.locator("html").get_attribute("lang") or "", ground, fits, faults

    found, ground, fits, faults = visitors.look(
        site.url, look, width=width, height=900 if width > 400 else 740, lang=f"{lang}-XX", scheme=scheme
    )
    assert found == lang
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
    assert fits
    assert [
        (fault["id"], fault["nodes"][0]["html"]) for fault in faults if fault["impact"] in {"serious", "critical"}
    ] == []


def test_numbers_and_conversions_change_by_themselves_while_images_are_converted(
    site: Site, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    def look(page: Page) -> None:
        settled(page)
        before, saved = count(page, "converted"), page.locator("#saved").inner_text()
        for number in range(12):
            write(site.root / "live" / f"new{number}.jpg", photograph(400 + number))
        expect(page.locator("#converted")).to_have_text(str(before + 12), timeout=60_000)
        expect(page.locator("#recent")).to_contain_text("new11.jpg")
        expect(page.locator("#saved")).not_to_have_text(saved)
        assert page.evaluate("performance.getEntriesByType('navigation').length") == 1

    visitors.look(site.url, look)


# How far two pictures are apart, in levels of 0..255, as a canvas has them.
_APART = """() => {
  const [one, other] = ["before", "after"].map(id => {
    const image = document.getElementById(id);
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
    canvas.drawImage(image, 0, 0);
    return canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight);
  });
  const differences = one.data.map((value, place) => Math.abs(value - other.data[place]));
  return [one.width, other.width, one.height, other.height, differences.reduce((x, y) => x + y, 0) / one.data.length];
}"""


def test_the_slider_shows_two_different_files_of_the_same_picture(
    site: Site, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    served = []
    for name in ("chosen", "newer"):
        path = write(site.root / "slider" / f"{name}.jpg", photograph(300, "astronaut.png"))
        site.service.wait_until(Path(f"{path}.webp").exists)

    def look(page: Page) -> Any:
        settled(page)
        page.on(
            "response",
            lambda answer: served.append((answer.url.rpartition("=")[2], answer.header_value("content-type"))),
        )
        chosen = page.locator("#recent button").filter(has_text="chosen.jpg")
        chosen.click()
        expect(chosen).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#shown-path")).to_contain_text("chosen.jpg")
        slider = page.get_by_role("slider")
        slider.focus()
        for key, at in (("Home", "0%"), ("ArrowRight", "1%"), ("End", "100%")):
            slider.press(key)
            assert page.locator("#stage").evaluate("stage => stage.style.getPropertyValue('--at')") == at
        return page.evaluate(_APART)

    width, other_width, height, other_height, apart = visitors.look(site.url, look)
    pictures = sorted((kind, media_type) for kind, media_type in served if not kind.startswith("blob:"))
    assert pictures == [("original", "image/jpeg"), ("webp", "image/webp")]
    assert (width, height) == (other_width, other_height)
    assert 0 < apart < 12


def test_where_the_newest_picture_is_gone_the_next_one_is_compared(
    site: Site, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    before = site.service.outcomes()["converted"]
    gone = write(site.root / "gone" / "gone.jpg", photograph(130))
    site.service.wait_until(gone.with_name("gone.jpg.webp").exists)
    # Not only published: whose original goes in that very moment was never converted.
    site.service.wait_until(lambda: site.service.outcomes()["converted"] > before)
    gone.unlink()

    def look(page: Page) -> None:
        settled(page)
        expect(page.locator("#recent")).to_contain_text("gone.jpg", timeout=30_000)
        expect(page.locator("#shown-path")).not_to_contain_text("gone.jpg", timeout=30_000)
        page.locator("#recent button").filter(has_text="gone.jpg").click()
        expect(page.locator("#stage-note")).to_have_text("gone/gone.jpg: is not there any more, or is a link")
        write(site.root / "gone" / "there.jpg", photograph(140))  # what other tests are shown
        page.mouse.move(0, 0)
        page.locator("#theme").focus()
        expect(page.locator("#recent")).to_contain_text("there.jpg", timeout=30_000)

    visitors.look(site.url, look, complaints=True)  # of the picture that is gone


def test_a_failure_is_retried_by_its_button_and_gone_once_it_is_cured(
    site: Site, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    cured = write(site.root / "cured.jpg", photograph()[:3000])
    site.service.wait_until(
        lambda: site.service.metrics()['webpd_refusals_total{outcome="failed",reason="damaged"}'] >= 2
    )

    def look(page: Page) -> None:
        settled(page)
        failure = page.locator("#failures li").filter(has_text="cured.jpg")
        expect(failure).to_contain_text("damaged", timeout=30_000)
        expect(failure).to_contain_text("Upload the image again")
        failure.get_by_role("button", name="Try again: cured.jpg").click()
        page.get_by_label("Token").last.fill("фисвуапршо")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("alert")).to_contain_text("is the keyboard set to Latin?")
        page.get_by_label("Token").last.fill("not the token, but long")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("alert")).to_have_text("This token is not the right one.")
        failed = failure.locator("time").get_attribute("datetime")
        page.get_by_label("Token").last.fill(TOKEN)
        page.get_by_role("button", name="Use it").click()
        told = page.get_by_role("status").last
        expect(told).to_have_text(re.compile("^(Will be tried|Failed) again: 1$"))
        expect(failure.locator("time")).not_to_have_attribute(
            "datetime", failed or "", timeout=30_000
        )  # tried, in vain
        expect(told).to_have_text("Failed again: 1")
        expect(failure.get_by_role("button", name="Try again: cured.jpg")).to_be_enabled()
        cured.write_bytes(photograph())
        expect(failure).to_have_count(0, timeout=30_000)
        assert "upload it again" not in page.locator("#failures").inner_text()

    visitors.look(site.url, look, complaints=True)  # of the token refused
    assert cured.with_name("cured.jpg.webp").exists()


def test_foreign_files_are_counted_and_listed(site: Site, visitors: Visitors) -> None:
    def look(page: Page) -> None:
        expect(page.locator("#foreign")).to_have_text("1", timeout=30_000)
        page.get_by_text("Show them").last.click()
        expect(page.locator("details[open] .files li")).to_have_text(f"{site.root}/iblock/foreign.jpg")

    visitors.look(site.url, look)


def test_language_and_colours_can_be_switched_and_stay(site: Site, visitors: Visitors) -> None:
    def look(page: Page) -> None:
        settled(page)
        page.get_by_role("link", name="RU").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(WELL["ru"], timeout=30_000)
        button = page.get_by_role("button", name="Оформление")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        button.click()
        assert page.evaluate(ground) == light
        button.click()
        dark = page.evaluate(ground)
        assert dark != light
        page.goto(site.url)
        expect(page.get_by_role("heading", level=1)).to_have_text(WELL["ru"], timeout=30_000)
        assert page.evaluate(ground) == dark

    visitors.look(site.url, look)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(site: Site, visitors: Visitors) -> None:
    def look(page: Page) -> set[str]:
        settled(page)
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            focus = page.evaluate("""() => {
              const here = document.activeElement, style = getComputedStyle(here);
              const room = here.closest('.recent')?.getBoundingClientRect(), box = here.getBoundingClientRect();
              const ring = parseFloat(style.outlineWidth) + parseFloat(style.outlineOffset);
              const cut = room && (box.left - ring < room.left || box.right + ring > room.right);
              const shown = here.matches('input, body') || (style.outlineStyle !== 'none' && !cut);
              return [here.closest('[id]')?.id ?? '', shown];
            }""")
            assert focus[1], focus
            reached.add(focus[0])
        return reached

    assert {"theme", "token", "at", "recent", "retry-all", "failures"} <= visitors.look(site.url, look)


def test_it_says_when_the_service_is_gone_and_goes_on_when_it_is_back(site: Site, visitors: Visitors) -> None:
    def look(page: Page) -> None:
        settled(page)
        site.service.stop()
        expect(page.get_by_role("heading", level=1)).to_have_text(
            "No connection: what is shown is out of date.", timeout=30_000
        )
        site.service.start()
        expect(page.get_by_role("heading", level=1)).to_have_text(WELL["en"], timeout=30_000)

    visitors.look(site.url, look, complaints=True)  # of the connection refused


def test_where_others_can_reach_it_it_asks_for_the_token_and_then_shows_everything(
    exposed: Site, visitors: Visitors
) -> None:
    def look(page: Page) -> None:
        expect(page.get_by_role("heading", level=1)).to_have_text(
            "Enter the token to see files and numbers", timeout=30_000
        )
        expect(page.locator("main")).to_contain_text("Other hosts can reach this page")
        expect(page.locator("#parts li")).to_have_count(0)
        for token in ("not the token, but long", TOKEN):
            page.get_by_label("Token").last.fill(token)
            page.get_by_role("button", name="Use it").click()
            expect(page.locator("#token-wrong")).to_have_text("This token is not the right one.")
        settled(page)
        page.reload()
        settled(page)
        page.get_by_role("button", name="Forget token").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Enter the token", timeout=30_000)
        expect(page.locator("#parts li")).to_have_count(0)

    visitors.look(exposed.url, look, complaints=True)  # of the tokens refused


def test_both_languages_say_everything_and_name_every_failure() -> None:
    english, russian = (texts(lang) for lang in LANGUAGES)
    assert list(english) == list(russian)
    for key in english:
        assert english[key], key
        assert russian[key], key
        assert set(re.findall(r"\{\w+\}|WEBPD_\w+|`[^`]*`", english[key])) == set(
            re.findall(r"\{\w+\}|WEBPD_\w+|`[^`]*`", russian[key])
        ), key
    for reason in Failure:
        assert english[f"reason_{reason}"]
        assert english[f"cure_{reason}"]


@pytest.mark.parametrize(
    ("wanted", "accepted", "lang"),
    [
        ("", "", "en"),
        ("", "ru", "ru"),
        ("", "ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", "ru"),
        ("", "en-US,en;q=0.9,ru;q=0.8", "en"),
        ("", "de, ru;q=0.4, en;q=0.5", "en"),
        ("", "de, ru;q=0.4", "ru"),
        ("", "ru;q=0, en;q=0.1", "en"),
        ("", "ru;q=x, ,;;;", "en"),
        ("ru", "en", "ru"),
        ("xx", "ru", "ru"),
    ],
)
def test_the_language_is_the_one_asked_for_or_else_the_browsers(wanted: str, accepted: str, lang: str) -> None:
    assert language_for(wanted, accepted) == lang


def test_every_way_that_a_part_can_be_in_is_put_into_words() -> None:
    known = texts("en")
    source = inspect.getsource(condition)
    keys = set(re.findall(r'(?:tell\(|yield |Condition\(\s*"?\w+"?, )"(\w+)"', source)) - {"queue"}
    keys |= {health.value for health in Health if health is not Health.WELL} | {"inotify", "poll"}
    keys |= {"redis_down", "queue_redis_down"}
    assert len(keys) > 20
    assert [key for key in keys if f"how_{key}" not in known and not key.endswith("_off")] == []
    assert [key for key in known if key.startswith("how_") and key.partition("_")[2] not in keys] == []


def test_every_text_that_the_page_asks_for_exists(site: Site) -> None:
    known = texts("en")
    for script in ("page.js", "compare.js", "words.js", "charts.js", "service.js"):
        asked = set(re.findall(r"\bt\.(\w+)", site.ask(f"/static/{script}").text))
        assert asked - known.keys() == set(), script
    shell = site.ask("/").text
    assert json.loads(shell.partition('id="texts">')[2].partition("</script>")[0]) == known
