"""Which file a browser gets, with which headers: each of 12 Accept values, 4 states of the sidecar and 4 requests."""

from collections.abc import Iterator

import pytest

from tests.nginx import matrix
from tests.nginx.matrix import ACCEPTS, PATH, REQUESTS, STATES, TAKES, Case
from tests.nginx.server import Nginx, printed


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("matrix")
    with Nginx(folder / "nginx", *printed(matrix.lay_out(folder))) as server:
        yield server


@pytest.fixture(scope="module")
def cases(nginx: Nginx) -> dict[tuple[str, str, str], Case]:
    return {(case.browser, case.state, case.request): case for case in matrix.observe(nginx)}


@pytest.fixture(params=ACCEPTS)
def browser(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def check_headers(case: Case) -> None:
    """Check what every answer must say, whatever was asked."""
    headers = case.answer.headers
    assert headers.get_all("Vary") == ["Accept"]
    assert headers.get_all("Cache-Control") == [f"max-age={case.seconds}"]
    assert headers["Last-Modified"] is None
    assert headers["ETag"] == case.first.headers["ETag"]


def check_type(case: Case) -> None:
    assert case.answer.type == ("image/webp" if case.sidecar else "image/jpeg")
    assert case.answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_matrix_is_whole(cases: dict[tuple[str, str, str], Case]) -> None:
    assert len(cases) == 12 * 4 * 4
    assert len(TAKES) == 5


def test_a_get_is_answered_with_the_file_that_the_browser_takes(
    cases: dict[tuple[str, str, str], Case], browser: str, state: str
) -> None:
    case = cases[browser, state, "GET"]
    assert case.answer.status == 200
    assert case.answer.body == case.body
    assert case.answer.headers["Accept-Ranges"] == "bytes"
    check_type(case)
    check_headers(case)
    assert (case.first.headers["ETag"] == case.other.headers["ETag"]) == (case.first.body == case.other.body)


def test_a_head_is_answered_like_the_get_without_its_body(
    cases: dict[tuple[str, str, str], Case], browser: str, state: str
) -> None:
    case = cases[browser, state, "HEAD"]
    assert case.answer.status == 200
    assert case.answer.body == b""
    assert case.answer.headers["Content-Length"] == str(len(case.body))
    check_type(case)
    check_headers(case)


def test_who_has_the_file_by_its_etag_is_sent_nothing(
    cases: dict[tuple[str, str, str], Case], browser: str, state: str
) -> None:
    case = cases[browser, state, "If-None-Match"]
    assert case.answer.status == 304
    assert case.answer.body == b""
    check_headers(case)


def test_a_range_is_one_of_the_file_that_the_browser_takes(
    cases: dict[tuple[str, str, str], Case], browser: str, state: str
) -> None:
    case = cases[browser, state, "Range"]
    assert case.answer.status == 206
    assert case.answer.body == case.body[5:25]
    assert case.answer.headers["Content-Range"] == f"bytes 5-24/{len(case.body)}"
    check_type(case)
    check_headers(case)


@pytest.mark.parametrize("validator", ["ETag", "date"])
def test_half_of_one_file_is_never_completed_with_the_other(
    nginx: Nginx, cases: dict[tuple[str, str, str], Case], browser: str, state: str, validator: str
) -> None:
    case = cases[browser, state, "GET"]
    date = "Tue, 14 Nov 2023 22:13:20 GMT"  # the sidecar's, and the original's
    had = case.other.headers["ETag"] if validator == "ETag" else date
    headers = {"Range": "bytes=5-", "If-Range": had}
    answer = nginx.ask_with(PATH.format(state=state), headers | _accept(browser))
    if validator == "ETag" and case.first.body == case.other.body:
        assert (answer.status, answer.body) == (206, case.body[5:])
    else:
        assert (answer.status, answer.body) == (200, case.body)


@pytest.mark.parametrize("validator", ["ETag", "date"])
def test_who_has_the_other_file_is_sent_this_one(
    nginx: Nginx, cases: dict[tuple[str, str, str], Case], browser: str, state: str, validator: str
) -> None:
    case = cases[browser, state, "GET"]
    had = {"If-None-Match": case.other.headers["ETag"]} if validator == "ETag" else {}
    headers = had or {"If-Modified-Since": "Fri, 01 Jan 2038 00:00:00 GMT"}
    answer = nginx.ask_with(PATH.format(state=state), headers | _accept(browser))
    if validator == "ETag" and case.first.body == case.other.body:
        assert answer.status == 304
    else:
        assert (answer.status, answer.body) == (200, case.body)


def test_the_table_in_the_document_is_what_was_answered(cases: dict[tuple[str, str, str], Case]) -> None:
    assert matrix.table(list(cases.values())) == matrix.documented(), "run: python -m tests.nginx.matrix"
    assert REQUESTS == ("GET", "HEAD", "If-None-Match", "Range"), "the document names them in this order"


def _accept(browser: str) -> dict[str, str]:
    return {} if ACCEPTS[browser] is None else {"Accept": str(ACCEPTS[browser])}
