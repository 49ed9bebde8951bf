"""What webpd costs a page of Bitrix: while it is up, while it hangs, and while it is away."""

import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.bitrix.listener import TOKEN, drips, hangs, swallows
from tests.bitrix.shop import PHOTO, Page, Shop, url_of
from tests.lab import free_port
from tests.service.driver import Service

WHEN_UP = 0.005
"""Seconds that a page may lose while webpd answers: what is promised. What is measured is printed (``pytest -s``)."""
WHEN_HUNG = 0.1
"""The same while it does not."""
BUSY = 0.15
"""Seconds by which a page may be late because others have the processor just then."""


def report(what: str, pages: list[Page]) -> None:
    """Print what the pages cost."""
    costs = sorted(page.cost * 1000 for page in pages)
    print(f"\n{what}: {costs[0]:.1f} to {costs[-1]:.1f} ms a page, median {costs[len(costs) // 2]:.1f}")


@pytest.mark.parametrize(
    ("url", "token"),
    [
        (None, TOKEN),
        ("", TOKEN),
        ("ftp://127.0.0.1/hint", TOKEN),
        ("http://127.0.0.1:8088", TOKEN),
        ("http://127.0.0.1:99999/hint", TOKEN),
        ("http://127.0.0.1:8088/hint\r\nX-Other: yes", TOKEN),
        ("http://cdn.example.invalid/hint", TOKEN),
        ("http://127.0.0.1:8088/hint", ""),
        ("http://127.0.0.1:8088/hint", "with spaces and\r\nlines in it"),
    ],
)
def test_wrong_settings_are_silent_and_cost_nothing(shop: Shop, url: str | None, token: str) -> None:
    page = shop.page(url, token=token, resize=shop.resize(PHOTO), delete=[PHOTO])
    assert "printed at the end\n" in page.text
    assert page.cost < BUSY


@pytest.mark.parametrize("failure", [hangs, swallows, drips])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_service_that_hangs_costs_a_page_no_more_than_its_budget(
    shop: Shop, failure: Callable[[], Any], scheme: str
) -> None:
    resize = shop.resize(*(("iblock/0ab", f"{number}.jpg") for number in range(60)))
    with failure() as port:
        pages = list(shop.pages_until(WHEN_HUNG, url_of(port, scheme), resize))
    report(f"{failure.__name__} ({scheme})", pages)
    assert WHEN_HUNG / 2 < pages[-1].cost < WHEN_HUNG
    assert all(page.text.endswith("visitor has it") for page in pages)


def test_a_page_with_several_hints_tries_no_second_one_after_its_budget_is_spent(shop: Shop) -> None:
    resize = shop.resize(*(("iblock/" + "д" * 60, f"{number}.jpg") for number in range(1200)))
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        page = shop.page(url_of(listener.getsockname()[1]), resize=resize)
        listener.setblocking(False)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert page.text.endswith("visitor has it")


def test_what_runs_for_long_has_its_budget_for_each_span_of_time(shop: Shop) -> None:
    code = """
        foreach ([1, 2] as $span) {
            foreach (range(1, 1200) as $number) tell("/upload/resize_cache/a/1_1_1/$span-$number.jpg");
            later();
        }
    """
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        shop.run(code, listener.getsockname()[1])
        listener.setblocking(False)
        calls = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()
                calls += 1
    assert calls == 3  # in each span, the last of which is the end


def test_a_service_that_is_away_costs_next_to_nothing(shop: Shop) -> None:
    page = shop.page(url_of(free_port()), resize=shop.resize(PHOTO), delete=[PHOTO])
    report("away", [page])
    assert page.cost < BUSY
    assert page.text.endswith("visitor has it")


def test_telling_a_service_that_is_up_costs_a_page_five_milliseconds_at_most(shop: Shop, service: Service) -> None:
    resize = shop.resize(*(("iblock/0ab", f"{number}.jpg") for number in range(60)))
    pages = list(shop.pages_until(WHEN_UP, url_of(service.health_port), resize))
    report("up, 60 thumbnails", pages)
    assert pages[-1].cost < WHEN_UP


def test_a_service_that_was_stopped_in_the_midst_costs_a_page_no_more_than_its_budget(
    shop: Shop, service: Service
) -> None:
    service.signal(signal.SIGSTOP)
    page = shop.page(url_of(service.health_port), resize=shop.resize(PHOTO))
    service.signal(signal.SIGCONT)
    report("stopped", [page])
    assert page.cost < WHEN_HUNG + BUSY
