"""One URL, asked for as several browsers would, and all that is found."""

from collections.abc import Iterator

from webpd.delivery import negotiation, orders, validation
from webpd.delivery.answer import MODERN, ORIGINALS, Answer
from webpd.delivery.browsers import CHROME
from webpd.delivery.client import AskingError, Client, Target
from webpd.delivery.survey import Survey, headers_of
from webpd.doctor.finding import Finding, Topic


def examine(client: Client, target: Target, *, fresh: bool = False) -> Iterator[Finding]:
    """Yield what is found, as it is found: about twenty requests. ``fresh`` asks under new addresses as well."""
    topic = Topic(target.url)
    try:
        first = client.ask(target, headers_of(CHROME, target))
        yield from _redirects(topic, first)
        if (bad := _unfit(topic, first)) is not None:
            yield bad
            return
        survey = Survey.of(client, target, first)
        yield from negotiation.look(topic, survey)
        if survey.original is not None:
            yield from validation.look(topic, client, target, survey.webp, survey.original)
        if fresh:
            yield orders.look(topic, client, target)
    except AskingError as error:
        yield topic.fault("delivery.answer", str(error), error.cure)


def _redirects(topic: Topic, answer: Answer) -> Iterator[Finding]:
    if answer.hops:
        yield topic.warning(
            "delivery.redirect",
            f"sent on to {answer.url}{f' by {len(answer.hops)} redirects' if len(answer.hops) > 1 else ''}: each first "
            "visit waits for one more round trip",
            "let pages link to the address where it ends",
        )


def _unfit(topic: Topic, answer: Answer) -> Finding | None:
    """Return what is wrong where there is nothing to compare: no image, or one that is no original."""
    if answer.status != 200:
        return topic.fault("delivery.answer", f"status {answer.status}", _CURES.get(answer.status, _LOG))
    if answer.kind in MODERN and answer.url.partition("?")[0].lower().endswith((".webp", ".avif")):
        return topic.fault(
            "delivery.answer", f"{answer.kind.label} under a name of its own", "give the URL of the JPEG or PNG instead"
        )
    if answer.kind not in ORIGINALS + MODERN:
        return topic.fault(
            "delivery.answer",
            f"{answer.what} instead of a JPEG or PNG",
            "give the URL of a JPEG or PNG of the site; if this is one, its file is damaged: a thumbnail that is "
            "deleted is made anew by the site",
        )
    return None


_LOG = "the error log of the web server says why, or that of what stands before it"
_CURES = {
    401: "give what it asks for: `--header 'Authorization: Basic …'`",
    403: "the error log of the web server says why: a missing right on the file or a folder above it, protection "
    "against hotlinks (where images have a host of their own: `--header 'Referer: https://SHOP/'`), or a firewall that "
    "takes this for a robot",
    404: "is the URL right (letters, case, encoding), and is the original still there? Sidecars are not given under "
    "their own names, nor without their originals",
    429: "too many requests: ask again later, or from a host that is not limited",
}
