"""The page of a service that is not well, or that only works for others: what is wrong, why, and what to do."""

# ruff: noqa: RUF001 - Russian letters look like others

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import write
from tests.lab import sshfs_lab
from tests.redis.server import RedisServer
from tests.service.driver import Service
from tests.web.browser import Visitors


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a function that starts a service over roots, with environment variables by keyword."""
    made: list[Service] = []

    def make(*roots: Path, **environment: str) -> Service:
        made.append(Service(tmp_path / f"service{len(made)}", *roots, **environment))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def in_both(page: Page, service: Service, **texts: tuple[str, str]) -> None:
    """Wait until the page says, in English and then in Russian, what is given for each place by its id."""
    for place, lang in enumerate(("en", "ru")):
        page.goto(f"http://localhost:{service.health_port}/?lang={lang}")
        for where, both in texts.items():
            expect(page.locator(f"#{where}")).to_contain_text(both[place], timeout=30_000)


def test_what_is_wrong_is_named_first_with_what_to_do_about_it(
    service: Callable[..., Service], tmp_path: Path, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    write(tmp_path / "tree" / "photo.jpg", photograph())
    one = service(tmp_path / "tree", WEBPD_REDIS_URL="redis://127.0.0.1:1/0")

    def look(page: Page) -> str:
        in_both(
            page,
            one,
            verdict=("It works, but look at this", "Работает, но есть замечания"),
            problems=(
                "Start it, or set its address in WEBPD_REDIS_URL.",
                "Запустите его или задайте его адрес в WEBPD_REDIS_URL.",
            ),
            parts=(
                "Refuses connections; this host goes on by itself.",
                "Не принимает соединения; сервер работает сам по себе.",
            ),
        )
        return page.title()

    assert visitors.look(f"http://localhost:{one.health_port}", look).startswith("!")


def test_while_a_mount_hangs_the_page_opens_says_so_and_shows_what_is_known(
    service: Callable[..., Service], tmp_path: Path, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    with sshfs_lab(tmp_path / "lab") as lab:
        for number in range(12):
            write(lab.origin / f"photo{number}.jpg", photograph(60 + number))
        one = service(lab.mnt)
        one.wait_until(lambda: len([*lab.origin.glob("*.webp")]) == 12, "they are converted")
        refused: list[str] = []

        def look(page: Page) -> None:
            page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 500 else None)
            expect(page.locator("#figure figcaption")).to_contain_text("photo", timeout=30_000)
            lab.stop()
            expect(page.locator("#verdict")).to_have_text("Something is wrong", timeout=30_000)
            in_both(
                page,
                one,
                verdict=("Something is wrong", "Есть неполадка"),
                problems=("ends what hangs; then mount again, SSHFS", "затем смонтируйте снова, SSHFS"),
                parts=(
                    f"the mount at {lab.mnt} (fuse.sshfs) did not answer within 3 s.",
                    f"Точка монтирования {lab.mnt} (fuse.sshfs) не ответила за 3 с.",
                ),
                recent=("photo0.jpg", "photo0.jpg"),
            )
            expect(page.locator("#parts li[data-is=down] time")).to_contain_text("уже", timeout=30_000)
            expect(page.locator("#stage-note")).to_have_text("Выберите картинку для сравнения.")
            assert (
                len(refused) <= 2 * 3
            )  # of both pages and of the change between them: a pair each, not all that are known
            lab.cont()
            expect(page.locator("#verdict")).to_have_text("Всё в порядке", timeout=30_000)
            expect(page.locator("#figure figcaption")).to_be_visible(timeout=30_000)

        try:
            visitors.look(f"http://localhost:{one.health_port}", look, complaints=True)  # of a picture not to be had
        finally:
            lab.cont()


def test_a_host_that_only_works_says_so_and_shows_how_it_is(
    service: Callable[..., Service], tmp_path: Path, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    write(tmp_path / "tree" / "photo.jpg", photograph())
    with RedisServer(tmp_path / "redis", "queue.conf") as redis:
        one = service(tmp_path / "tree", WEBPD_ROLE="work", WEBPD_QUEUE_URL=redis.url)

        def look(page: Page) -> None:
            in_both(
                page,
                one,
                verdict=("All is well", "Всё в порядке"),
                trouble=("This host only works for others", "Этот сервер только выполняет работу"),
                parts=("what other hosts find in it is converted", "преобразуется то, что нашли другие серверы"),
            )

        visitors.look(f"http://localhost:{one.health_port}", look)


def test_where_others_can_reach_it_and_no_token_is_set_it_shows_nothing_and_says_once_what_to_set(
    service: Callable[..., Service], tmp_path: Path, visitors: Visitors, photograph: Callable[..., bytes]
) -> None:
    write(tmp_path / "tree" / "photo.jpg", photograph())
    one = service(tmp_path / "tree", WEBPD_ALLOWED_HOSTS="localhost,cdn.example")

    def look(page: Page) -> None:
        in_both(page, one, verdict=("Nothing is shown without a token", "Без токена ничего не показывается"))
        expect(page.locator("main")).to_contain_text("задайте WEBPD_TOKEN")
        assert page.locator("main").inner_text().count("WEBPD_TOKEN") == 1
        expect(page.locator("#parts li")).to_have_count(0)

    visitors.look(f"http://localhost:{one.health_port}", look, complaints=True)  # of what is refused
