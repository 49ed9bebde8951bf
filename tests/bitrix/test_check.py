"""What WebpdHint::check() tells the administrator."""

import socket

from tests.bitrix.listener import HintServer, hangs, swallows
from tests.bitrix.shop import OTHER_TOKEN, Shop, url_of
from tests.lab import free_port


def said(shop: Shop, url: str | None, **settings: str) -> str:
    text = shop.page(url, check=True, **settings).text
    return text.partition("\n")[0]


def test_check_says_what_webpd_answers(shop: Shop, server: HintServer) -> None:
    shop.have_time()
    assert "202 Accepted" in said(shop, url_of(server.server_port))
    assert "401 Unauthorized" in said(shop, url_of(server.server_port), token=OTHER_TOKEN)


def test_check_says_that_webpd_takes_nothing_where_its_roots_are_elsewhere(shop: Shop, server: HintServer) -> None:
    shop.have_time()
    url = url_of(server.server_port)
    assert "but it will not look at" not in shop.page(url, check=True).text
    server.has_root = False
    text = shop.page(url, check=True).text
    assert '{"taken": 0}' in text
    assert "but it will not look at /upload/resize_cache/webpd-check.jpg: compare its roots" in text


def test_check_says_in_words_what_is_wrong(shop: Shop) -> None:
    assert "refuses connections" in said(shop, url_of(free_port()))
    assert "WEBPD_HINT_URL=" in said(shop, None)
    assert "WEBPD_TOKEN" in said(shop, url_of(free_port()), token=OTHER_TOKEN[:5])
    assert "WEBPD_HINT_ADDRESS" in said(shop, "https://cdn.example.invalid/hint")
    with hangs() as port:
        assert "no answer within 80 ms" in said(shop, url_of(port))
    with swallows() as port:
        assert "no connection" in said(shop, url_of(port))


def test_an_address_of_ipv6_is_called_as_one(shop: Shop) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        text = shop.page(url_of(port, host="[::1]"), check=True).text
    assert "no answer within 80 ms" in text
