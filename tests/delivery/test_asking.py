"""How a site is asked: what goes wrong on the way is told with its cause, and nothing takes without end."""

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import WEBPD
from tests.delivery.site import PATH, Reply, Request, Site, running
from tests.delivery.visit import bad, check, found, look, verdicts
from tests.lab import free_port
from webpd.delivery.client import BODY_LIMIT, Client, target_of
from webpd.errors import UsageError


@contextmanager
def talking(say: bytes, seconds: float = 0.0, asked: threading.Event | None = None) -> Iterator[int]:
    """Give a port where a server sends these bytes, one at a time where it takes ``seconds`` for each, and hangs up.

    It sets ``asked`` when it has been asked. Without bytes to send it does nothing, without end.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()
        pieces = [say] if not seconds else [say[at : at + 1] for at in range(len(say))]

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65_536)
                        if asked is not None:
                            asked.set()
                        for piece in pieces:
                            connection.sendall(piece)
                            if ended.wait(seconds):
                                return
                        if not say:
                            ended.wait()
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            with socket.create_connection(server.getsockname()):
                pass
            thread.join()


def only_fault(port: int, timeout: float = 10) -> str:
    """Return what is said where no answer can be had."""
    findings = look(f"http://127.0.0.1:{port}{PATH}", timeout=timeout)
    assert verdicts(findings.values()) == {"answer": "fault"}
    assert bad(findings)
    return findings["delivery.answer"].detail


def test_a_server_that_is_not_there_is_said_to_refuse() -> None:
    assert "refuses connections" in only_fault(free_port())


def test_a_host_without_an_address_is_said_to_be_unknown() -> None:
    finding = look("http://no-such-host.invalid/a.jpg")["delivery.answer"]
    assert "no address is known" in finding.detail


def test_a_server_that_never_answers_is_given_up() -> None:
    with talking(b"") as port:
        assert "no whole answer within 0.3 s" in only_fault(port, timeout=0.3)


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 4000, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 4000])
def test_a_server_that_never_stops_answering_is_given_up_as_well(said: bytes) -> None:
    with talking(said, 0.01) as port:
        assert "no whole answer within 0.3 s" in only_fault(port, timeout=0.3)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "without an answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\xff\xd8\xff", "97 bytes too soon"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "too soon"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", "without an answer in HTTP"),
    ],
)
def test_an_answer_that_is_none_is_told_as_such(said: bytes, word: str) -> None:
    with talking(said) as port:
        assert word in only_fault(port)


def test_no_more_than_the_limit_is_read() -> None:
    def endless(request: Request, reply: Reply) -> None:
        reply.body = bytes(BODY_LIMIT + 1)

    with running(Site(finish=endless)) as site:
        assert "more than 64 MiB" in only_fault(site.port)


# Redirects


def test_a_redirect_is_followed_and_told_and_one_without_end_is_a_fault() -> None:
    def move(request: Request, reply: Reply) -> None:
        if request.path.startswith("/old"):
            reply.status, reply.body = 301, b""
            reply.headers["Location"] = request.path.removeprefix("/old")
        if request.path.startswith("/loop"):
            reply.status, reply.body, reply.headers["Location"] = 302, b"", f"{request.path}x"

    with running(Site(describe=move)) as site:
        findings = look(f"http://127.0.0.1:{site.port}/old{PATH}")
        assert verdicts(bad(findings).values()) == {"redirect": "warning"}
        assert site.url in findings["delivery.redirect"].detail
        without_end = look(f"http://127.0.0.1:{site.port}/loop")
    assert "without end" in without_end["delivery.answer"].detail


def test_headers_of_the_user_go_to_no_other_host() -> None:
    with running(Site()) as other:

        def move(request: Request, reply: Reply) -> None:
            reply.status, reply.body, reply.headers["Location"] = 302, b"", other.url

        with running(Site(describe=move)) as site:
            Client(headers={"Authorization": "Basic c2VjcmV0"}).ask(target_of(site.url), {"Accept": "*/*"})
            assert site.asked[0].headers["authorization"] == "Basic c2VjcmV0"
    assert "authorization" not in other.asked[0].headers
    assert other.asked[0].headers["accept"] == "*/*"


# Names and addresses


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://shop.example/фото 1.jpg", "http://shop.example/%D1%84%D0%BE%D1%82%D0%BE%201.jpg"),
        ("https://магазин.рф/a%20b.jpg?v=1", "https://xn--80aairftm.xn--p1ai/a%20b.jpg?v=1"),
        ("HTTP://Shop.Example:80", "http://shop.example/"),
        ("https://[::1]:8443/a.jpg#top", "https://[::1]:8443/a.jpg"),
    ],
)
def test_a_url_is_sent_as_browsers_send_it(url: str, sent: str) -> None:
    assert target_of(url).url == sent


@given(st.text(max_size=30), st.text(max_size=30))
def test_what_is_sent_is_a_url_that_stays_the_same(path: str, query: str) -> None:
    try:
        target = target_of(f"http://shop.example/{path}?{query}")
    except UsageError:
        return
    assert target_of(target.url) == target
    target.url.encode("ascii")
    assert not any(letter.isspace() for letter in target.url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example/a.jpg",
        "ftp://shop.example/a.jpg",
        "file:///etc/passwd",
        "http:///a.jpg",
        "http://shop.example:99999/a.jpg",
        "http://[::1/a.jpg",
        "http://user:secret@shop.example/a.jpg",
        "http://shop.example/a.jpg\r\nHost: other.example",
        f"http://{'a' * 64}.example/a.jpg",
    ],
)
def test_what_is_no_url_is_refused_with_a_word_on_why(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        target_of(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("http://shop.example/a.jpg", "shop.example/b.jpg"),
        ("--via", "a b", "http://shop.example/a.jpg"),
        ("--header", "Accept: image/webp", "http://shop.example/a.jpg"),
        ("--timeout", "0", "http://shop.example/a.jpg"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(arguments: tuple[str, ...]) -> None:
    done = check(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


# The command


def test_the_command_tells_all_and_its_exit_code_says_whether_there_is_a_fault() -> None:
    with running(Site()) as good, running(Site(choose=lambda _: True)) as wrong:
        done = check(good.url, wrong.url)
        assert found(check("--json", good.url))["delivery.saved"]["subject"] == good.url
        everything = json.loads(check("--json", good.url, wrong.url).stdout)
    assert done.returncode == 3
    assert done.stdout.index(good.url) < done.stdout.index(wrong.url)
    assert "FAULT" in done.stdout
    assert "-> give WebP only where" in done.stdout
    assert {each["subject"] for each in everything} == {good.url, wrong.url}
    assert {"id", "subject", "verdict", "detail", "cure"} == {*everything[0]}


def test_the_server_behind_a_cdn_is_asked_by_the_name_of_the_site() -> None:
    with running(Site()) as site:
        done = check("--json", "--via", f"127.0.0.1:{site.port}", "--header", "X-Key: 1", f"http://cdn.example{PATH}")
    assert found(done)["delivery.webp"]["verdict"] == "ok"
    assert {request.headers["host"] for request in site.asked} == {"cdn.example"}
    assert {request.headers["x-key"] for request in site.asked} == {"1"}


def test_what_a_server_sends_does_nothing_to_the_terminal() -> None:
    with running(Site(finish=lambda _, reply: reply.headers.update({"X-Cache": "\x1b[2J HIT"}))) as site:
        done = check(site.url)
    assert "\x1b" not in done.stdout
    assert r"\x1b[2J HIT" in done.stdout


def test_what_is_sent_instead_of_http_does_nothing_to_the_terminal_either() -> None:
    with talking(b"\x1b]0;owned\x07 HTTP?\r\n") as port:
        assert r"\x1b]0;owned\x07" in only_fault(port)


def test_a_header_of_the_user_stands_for_that_of_the_browsers_and_may_have_any_letters() -> None:
    with running(Site()) as site:
        done = check("--json", "--header", "referer: https://shop.example/", "--header", "X-Key: ключ", site.url)
    assert done.returncode == 0
    assert {request.headers["referer"] for request in site.asked} == {"https://shop.example/"}
    assert {request.headers["x-key"].encode("latin-1").decode() for request in site.asked} == {"ключ"}


def test_it_ends_at_once_when_interrupted() -> None:
    asked = threading.Event()
    command = [*WEBPD, "check", "http://127.0.0.1/a.jpg"]
    with (
        talking(b"", asked=asked) as port,
        subprocess.Popen([*command, "--via", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL) as process,
    ):
        assert asked.wait(60)
        process.terminate()
        assert process.wait(60) == 130


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for shop.example that nobody has signed but itself, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "made.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    made.write_bytes((folder / "key.pem").read_bytes() + (folder / "certificate.pem").read_bytes())
    return made


def test_a_certificate_is_looked_at_by_the_name_of_the_site(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with running(Site(), context) as site:
        via, url = ("127.0.0.1", site.port), f"https://shop.example{PATH}"
        unknown = look(url, via=via)
        assert bad(look(url, via=via, insecure=True)) == {}
        command = ("--json", "--via", f"127.0.0.1:{site.port}", url, f"https://other.example{PATH}")
        trusted = json.loads(check(*command, SSL_CERT_FILE=str(certificate)).stdout)
    assert "self-signed certificate" in unknown["delivery.answer"].detail
    assert "certbot" in unknown["delivery.answer"].cure
    assert {each["verdict"] for each in trusted if each["subject"] == url} == {"ok"}
    (other,) = (each for each in trusted if each["subject"] != url)
    assert "Hostname mismatch" in other["detail"]


def test_a_port_that_does_not_speak_tls_is_said_so() -> None:
    with running(Site()) as site:
        findings = look(f"https://127.0.0.1:{site.port}/a.jpg")
    assert "TLS failed" in findings["delivery.answer"].detail


def test_a_hang_in_the_midst_of_tls_is_given_up() -> None:
    with talking(b"") as port:
        findings = look(f"https://127.0.0.1:{port}/a.jpg", timeout=0.3)
    assert "no whole answer within 0.3 s" in findings["delivery.answer"].detail
