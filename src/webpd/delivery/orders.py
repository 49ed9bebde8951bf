"""What a cache does that has seen nothing yet: asked in both orders, under addresses of their own."""

import secrets

from webpd.delivery.answer import MODERN, ORIGINALS, Answer
from webpd.delivery.between import ANY_CACHE, between
from webpd.delivery.browsers import CHROME, OLD_SAFARI
from webpd.delivery.client import Client, Target
from webpd.delivery.survey import headers_of
from webpd.doctor.finding import Finding, Topic


def look(topic: Topic, client: Client, target: Target) -> Finding:
    """Ask with a query that nobody asked with before. Raises ``AskingError``."""
    mark = f"webpd-check={secrets.token_hex(6)}"
    first = target.marked(f"{mark}-1")
    before, webp, after = (client.ask(first, headers_of(each, first)) for each in (OLD_SAFARI, CHROME, OLD_SAFARI))
    second = target.marked(f"{mark}-2")
    early, original = (client.ask(second, headers_of(each, second)) for each in (CHROME, OLD_SAFARI))
    if not all(answer.is_image for answer in (before, webp, after, early, original)):
        return topic.unknown(
            "delivery.fresh",
            "with a query of its own the image is not given",
            "the site refuses queries on images: leave out --fresh, and ask the web server itself (`--via ADDRESS`)",
        )
    if any(answer.kind in MODERN for answer in (after, original)):
        return _mixed(topic, "WebP, asked for first, is given to who can't read it", original, before.kind in MODERN)
    if early.kind in MODERN and webp.kind in ORIGINALS:
        return _mixed(topic, "the original, asked for first, is given to who takes WebP", webp, False)
    if webp.kind in ORIGINALS:
        return topic.unknown(
            "delivery.fresh",
            "past what a cache may keep, there is no WebP either: what it would do with two answers can't be seen",
            "ask again once there is a sidecar; where a cache takes no account of queries (Bunny), purge it first",
        )
    return topic.ok("delivery.fresh", "asked in both orders under new addresses, each browser is given its own")


def _mixed(topic: Topic, what: str, answer: Answer, from_the_start: bool) -> Finding:
    if from_the_start:
        return topic.fault(
            "delivery.fresh",
            "WebP is given to who can't read it even when nobody asked before: the web server does it, no cache (or "
            "one that takes no account of queries)",
            "give WebP only where Accept names image/webp; `webpd nginx` prints what the web server needs",
        )
    stands = between(answer)
    return topic.fault(
        "delivery.fresh",
        f"{what}: {stands.name if stands else 'a cache'} ignores `Vary: Accept`",
        stands.cure if stands else ANY_CACHE,
    )
