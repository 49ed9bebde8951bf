"""Whether what a browser has of one picture can get mixed up with the other: dates, ETags, ranges, HEAD."""

from collections.abc import Iterator
from dataclasses import dataclass

from webpd.delivery.answer import Answer
from webpd.delivery.between import REFUSED
from webpd.delivery.browsers import Browser
from webpd.delivery.client import AskingError, Client, Target
from webpd.delivery.survey import Asked, headers_of
from webpd.doctor.finding import Finding, Topic

_BY_ETAG = '`add_header Last-Modified ""`, `if_modified_since off` and ETags, as `webpd nginx` prints'
_PART = 100  # bytes


@dataclass(frozen=True, slots=True)
class _Asking:
    client: Client
    target: Target

    def ask(self, browser: Browser, method: str = "GET", /, **headers: str) -> Answer:
        """Ask as the browser; headers have _ for -."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        if "Range" in more:
            more["Accept-Encoding"] = "identity"  # as browsers do
        try:
            return self.client.ask(self.target, {**headers_of(browser, self.target), **more}, method)
        except AskingError as error:
            question = f"{method} with {' and '.join(more)}" if more else method
            raise AskingError(f"{error} (asked by {question})", error.cure) from error


def look(topic: Topic, client: Client, target: Target, webp: Asked | None, original: Asked) -> Iterator[Finding]:
    """Ask what browsers and caches ask when they have something already. Raises ``AskingError``.

    ``webp`` and ``original`` are who was given WebP, if anybody was, and who the original.
    """
    asking = _Asking(client, target)
    if webp is not None:
        yield _dates(topic, asking, webp, original.answer)
        yield _etags(topic, webp.answer, original.answer)
    yield from _unchanged(topic, asking, webp, original)
    yield _ranges(topic, asking, webp, original)
    yield _head(topic, asking, webp, original)


def _dates(topic: Topic, asking: _Asking, webp: Asked, original: Answer) -> Finding:
    date = original.header("Last-Modified")
    if not date and not webp.answer.header("Last-Modified"):
        return topic.ok("delivery.dates", "no Last-Modified: what is kept is told apart by ETag alone")
    if not date:
        return topic.ok("delivery.dates", "the original has no Last-Modified that could be taken for that of WebP")
    if asking.ask(webp.browser, Range="bytes=1-", If_Range=date).status == 206:
        detail = "the rest of WebP is given to who has the beginning of the original (If-Range by Last-Modified)"
        if not original.etag:
            return topic.fault("delivery.dates", f"{detail}: a broken picture", _BY_ETAG)
        return topic.warning("delivery.dates", f"{detail}; browsers use the ETag, others may not", _BY_ETAG)
    if asking.ask(webp.browser, If_Modified_Since=date).status == 304:
        detail = (
            "who has the original is told by its date that nothing changed (304), and keeps it though WebP is there"
        )
        return topic.warning("delivery.dates", detail, _BY_ETAG)
    return topic.ok("delivery.dates", "the date of the original is not taken for that of WebP")


def _etags(topic: Topic, webp: Answer, original: Answer) -> Finding:
    if not webp.etag or not original.etag:
        return topic.warning(
            "delivery.etags",
            f"{'the original' if webp.etag else 'WebP'} has no ETag: who has it is given it again after a while",
            "`etag on` in nginx (the default); a gzip or sub_filter on images, or a CDN's setting, removes it",
        )
    if _opaque(webp.etag) == _opaque(original.etag):
        return topic.fault(
            "delivery.etags",
            f"two pictures under one ETag ({webp.etag}): halves of both get glued together, and caches mix them up",
            "make ETags of what is sent (nginx: of its time and size), not of URL or original; then purge caches",
        )
    return topic.ok("delivery.etags", "WebP and original have each an ETag of its own")


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")


def _unchanged(topic: Topic, asking: _Asking, webp: Asked | None, original: Asked) -> Iterator[Finding]:
    """Ask with the ETag that a browser has, and with that of the other picture."""
    if webp is not None and _differ(webp.answer, original.answer):
        mixed = ((webp, original), (original, webp))
        if any(asking.ask(one.browser, If_None_Match=other.answer.etag).status == 304 for one, other in mixed):
            yield topic.fault(
                "delivery.unchanged",
                "who has one picture is told 304 by its ETag where the other would be given",
                "let the web server, and what stands between, compare the ETag with that of what they would send",
            )
            return
    had = [each for each in (webp, original) if each is not None and each.answer.etag]
    answers = [asking.ask(each.browser, If_None_Match=each.answer.etag) for each in had]
    if not answers:
        return
    odd = [answer for answer in answers if answer.status not in {200, 304}]
    if odd:
        yield topic.fault(
            "delivery.unchanged",
            f"{odd[0].what} for browsers that ask whether what they have is still right (If-None-Match)",
            REFUSED,
        )
    elif any(answer.status != 304 for answer in answers):
        yield topic.warning(
            "delivery.unchanged",
            "who has the picture is given it again, whole (If-None-Match is not answered with 304)",
            "let what stands between pass If-None-Match and ETag on; images made by a program have to compare them",
        )
    elif webp is not None and not all(answer.varies for answer in answers):
        yield topic.warning(
            "delivery.unchanged",
            "304 comes without `Vary: Accept`: a cache may forget what its answer depends on",
            "`add_header Vary Accept` (nginx adds it to 304 too); let what stands between keep it (RFC 9110, 15.4.5)",
        )
    else:
        yield topic.ok("delivery.unchanged", "who has the picture is told so (304), each by its own ETag")


def _differ(webp: Answer, original: Answer) -> bool:
    """Tell whether both have an ETag, and not the same."""
    return bool(webp.etag and original.etag) and _opaque(webp.etag) != _opaque(original.etag)


def _packed(answer: Answer) -> bool:
    return answer.header("Content-Encoding").lower() not in {"", "identity"}


def _ranges(topic: Topic, asking: _Asking, webp: Asked | None, original: Asked) -> Finding:
    whole, browser = (webp or original).answer, (webp or original).browser
    part = asking.ask(browser, Range=f"bytes=0-{_PART - 1}")
    if part.status == 200:
        return topic.ok("delivery.ranges", "no ranges: a download that broke off begins again")
    if part.status != 206:
        return topic.fault("delivery.ranges", f"{part.what} for browsers that ask for a part (Range)", REFUSED)
    if _packed(whole):  # parts were asked for unpacked
        whole = asking.ask(browser, Accept_Encoding="identity")
    length = min(_PART, whole.size)
    right = (
        part.size == length
        and part.header("Content-Range") == f"bytes 0-{length - 1}/{whole.size}"
        and part.start == whole.start[:length]
        and part.type == whole.type
    )
    if not right:
        return topic.fault(
            "delivery.ranges",
            f"the first {_PART} bytes come wrong: {part.size:,} bytes, {part.type or 'no type'}, Content-Range "
            f"{part.header('Content-Range') or '(none)'}",
            "let the web server give ranges of the file that it would send whole, and a cache keep parts by Accept too",
        )
    if webp is None or not _differ(whole, original.answer):
        return topic.ok("delivery.ranges", "parts come right")
    glued = asking.ask(browser, Range="bytes=1-", If_Range=original.answer.etag)
    if glued.status == 206:
        return topic.fault(
            "delivery.ranges",
            "who has the beginning of the original is given the rest of WebP (If-Range by ETag): a broken picture",
            "let the web server, and what stands between, compare If-Range with the ETag of what they would send",
        )
    return topic.ok("delivery.ranges", "parts come right, and only to who has the beginning of the same picture")


def _head(topic: Topic, asking: _Asking, webp: Asked | None, original: Asked) -> Finding:
    for each in (webp, original):
        if each is None:
            continue
        head, whole = asking.ask(each.browser, "HEAD"), each.answer
        different = [
            name for name in ("Content-Type", "ETag", "Vary") if head.header(name).lower() != whole.header(name).lower()
        ]
        if head.header("Content-Length") not in {"", str(whole.size)} and not _packed(whole):
            different.append("Content-Length")
        if head.status != whole.status:
            different = [f"status {head.status}"]
        if different:
            return topic.warning(
                "delivery.head",
                f"HEAD is answered otherwise than GET ({', '.join(different)})",
                "monitoring and caches believe it: let HEAD go where GET goes, also in what stands between",
            )
    return topic.ok("delivery.head", "HEAD is answered as GET")
