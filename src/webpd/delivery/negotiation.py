"""Who is given what, and what caches are told about it."""

from collections.abc import Iterator

from rich.filesize import decimal

from webpd.delivery.answer import MODERN, ORIGINALS, Answer
from webpd.delivery.between import ANY_CACHE, REFUSED, between
from webpd.delivery.browsers import DO_NOT, READ_WEBP, REFUSES
from webpd.delivery.survey import Asked, Survey, names
from webpd.doctor.finding import Finding, Topic

_CONFIGURE = "`webpd nginx` prints what the web server needs"
_HOUR = 3600.0  # seconds
_SHORT = {None: "for as long as a browser guesses", 0.0: "not at all: it is asked for at every visit"}


def look(topic: Topic, survey: Survey) -> Iterator[Finding]:
    """Judge what the browsers were given."""
    yield _answered(topic, survey)
    yield from _types(topic, survey)
    yield from _to_readers(topic, survey)
    yield from _to_others(topic, survey)
    yield from _vary(topic, survey)
    yield from _saved(topic, survey)
    yield _lifetime(topic, survey)
    yield _between(topic, survey)
    yield from _encoding(topic, survey)


def _answered(topic: Topic, survey: Survey) -> Finding:
    odd = [each for each in survey.asked if not each.answer.is_image]
    if odd:
        detail = f"not everybody is given an image: {odd[0].answer.what} for {names(odd)}"
        return topic.fault("delivery.answer", detail, REFUSED)
    return topic.ok("delivery.answer", f"an image for each of {len(survey.asked)} requests as different browsers")


def _types(topic: Topic, survey: Survey) -> Iterator[Finding]:
    wrong = [each for each in survey.images if each.answer.type != each.answer.kind]
    if not wrong:
        yield topic.ok("delivery.type", "Content-Type says what the bytes are")
        return
    answer = wrong[0].answer
    detail = f"{answer.kind.label} comes as Content-Type {answer.type or '(none)'}, to {names(wrong)}"
    if answer.type.startswith("image/"):
        mend = "give the file the ending of what it is" if answer.kind in ORIGINALS else _CONFIGURE
        cure = f"browsers look at the bytes and show it, other programs don't; {mend}"
        yield topic.warning("delivery.type", detail, cure)
    else:
        cure = "`include mime.types;` and `types { image/webp webp; }` in the web server, and no default_type over it"
        yield topic.fault("delivery.type", f"{detail}: with nosniff, browsers do not show it", cure)


def _to_readers(topic: Topic, survey: Survey) -> Iterator[Finding]:
    asked = [Asked(browser, survey.last(browser)) for browser in READ_WEBP]
    last = [each for each in asked if each.answer.is_image]
    without = [each for each in last if each.answer.kind not in MODERN]
    if not last:
        return
    if not without:
        kinds = ", ".join(dict.fromkeys(each.answer.kind.label for each in last))
        yield topic.ok("delivery.webp", f"{kinds} for {names(last)}, who take it")
    elif len(without) < len(last):
        yield topic.warning(
            "delivery.webp",
            f"no WebP for {names(without)}, who take it, though others are given it",
            f"look for image/webp anywhere in Accept: {_CONFIGURE}; a cache with one answer for all does this as well",
        )
    else:
        yield _nowhere(topic, last[0].answer)


def _nowhere(topic: Topic, answer: Answer) -> Finding:
    """Tell which part is missing where nobody is given WebP."""
    if not answer.varies and answer.from_cache:
        return topic.fault(
            "delivery.webp",
            f"the original for all, out of a cache ({answer.cache}) and without `Vary: Accept`: kept from before the "
            "web server looked for sidecars, or it does not do so",
            f"ask the web server itself: `--via ADDRESS`. If all is well there, purge the cache; else {_CONFIGURE}",
        )
    if not answer.varies:
        return topic.fault(
            "delivery.webp",
            "the original for all, and the answer does not say that it depends on Accept: the web server does not look "
            "for sidecars here",
            f"{_CONFIGURE}; is the URL below a root (`webpd config`: WEBPD_ROOTS, WEBPD_DOCUMENT_ROOT), does no other "
            "location of the site win, and was it reloaded (`nginx -t && systemctl reload nginx`)?",
        )
    if answer.from_cache:
        return topic.warning(
            "delivery.webp",
            f"the original for all, out of a cache ({answer.cache}): what the web server has now can't be seen",
            "`--fresh` asks past what it keeps; or ask the web server itself: `--via ADDRESS`",
        )
    return topic.warning(
        "delivery.webp",
        "the original for all: the web server looks for a sidecar, and there is none (yet)",
        "ask again in a minute: being asked for, it is converted first where hints are on. Then: does the service run "
        "(`webpd status`), did it fail (`webpd failures`), or would WebP be no smaller (`webpd convert` on the file "
        "counts it as kept original)?",
    )


def _to_others(topic: Topic, survey: Survey) -> Iterator[Finding]:
    wrong = survey.given(DO_NOT, MODERN)
    others = [each for each in wrong if each.browser is not REFUSES]
    right = survey.given(DO_NOT, ORIGINALS)
    if others:
        yield _broken(topic, others)
    elif wrong:
        yield topic.warning(
            "delivery.original",
            f"{wrong[0].answer.kind.label} for {names(wrong)}, who refuse it",
            f"no browser does so; {_CONFIGURE}",
        )
    elif right:
        yield topic.ok(
            "delivery.original", f"the original for {names(right)}, who can't read WebP or don't say that they can"
        )


def _broken(topic: Topic, asked: list[Asked]) -> Finding:
    """Tell who it is that gives WebP to those who do not take it."""
    answer = asked[0].answer
    detail = f"{answer.kind.label} for {names(asked)}, who can't read it or don't say that they can: broken pictures"
    stands = between(answer)
    if answer.from_cache or stands:
        by = f"{stands.name if stands else 'a cache'}{f' ({answer.cache})' if answer.cache else ''}"
        return topic.fault(
            "delivery.original",
            f"{detail}. It came through {by}, which gives what it keeps for one browser to another, or the web server "
            "gives WebP to all (`--via ADDRESS` asks it alone)",
            stands.cure if stands else ANY_CACHE,
        )
    return topic.fault(
        "delivery.original",
        detail,
        f"give WebP only where Accept names image/webp; {_CONFIGURE}. If a cache stands between: {ANY_CACHE}",
    )


def _vary(topic: Topic, survey: Survey) -> Iterator[Finding]:
    if survey.webp is None:
        return
    cure = f"`add_header Vary Accept` on both answers; {_CONFIGURE}; let what stands between pass it on"
    lacking = [each for each in survey.images if not each.answer.varies]
    webp = [each for each in lacking if each.answer.kind in MODERN]
    if webp:
        yield topic.fault(
            "delivery.vary",
            "WebP comes without `Vary: Accept`: a cache on the way gives it to browsers that can't read it",
            cure,
        )
    elif lacking:
        yield topic.warning(
            "delivery.vary",
            "the original comes without `Vary: Accept`: a cache on the way gives it to browsers that take WebP",
            cure,
        )
    else:
        yield topic.ok("delivery.vary", "both answers say `Vary: Accept`")


def _saved(topic: Topic, survey: Survey) -> Iterator[Finding]:
    if survey.webp is None or survey.original is None:
        return
    webp, original = survey.webp.answer, survey.original.answer
    sizes = f"{decimal(original.size)} as {original.kind.label}, {decimal(webp.size)} as {webp.kind.label}"
    if webp.size < original.size:
        yield topic.ok("delivery.saved", f"{sizes}: {1 - webp.size / original.size:.0%} saved")
    else:
        yield topic.warning(
            "delivery.saved",
            f"{sizes}: nothing is saved",
            "webpd keeps no sidecar that is no smaller: who makes this one? `webpd verify` on the file tells whether "
            "it is webpd's",
        )


def _lifetime(topic: Topic, survey: Survey) -> Finding:
    if survey.webp is None:
        answer = survey.given(READ_WEBP, ORIGINALS)[-1].answer
        if answer.varies and (answer.lifetime is None or answer.lifetime > _HOUR):
            return topic.warning(
                "delivery.lifetime",
                f"browsers that take WebP keep the original {_time(answer)}: they get none before, when there is one",
                f"a short max-age where a sidecar is still missing; {_CONFIGURE}",
            )
        return topic.ok("delivery.lifetime", f"browsers keep it {_time(answer)}")
    answers = [each.answer for each in (survey.webp, survey.original) if each is not None]
    short = [answer for answer in answers if (answer.lifetime or 0.0) < _HOUR]
    if not short:
        return topic.ok("delivery.lifetime", f"browsers keep {answers[0].kind.label} {_time(answers[0])}")
    return topic.warning(
        "delivery.lifetime",
        f"browsers keep {short[0].kind.label} {_time(short[0])}",
        f"a long max-age in Cache-Control, since thumbnails do not change under their name; {_CONFIGURE}",
    )


def _time(answer: Answer) -> str:
    """Return for how long browsers keep it; to be read after "keep it"."""
    seconds = answer.lifetime
    if seconds is None or seconds == 0:
        return f"{_SHORT[seconds]} (Cache-Control: {answer.header('Cache-Control') or 'none'})"
    units = ((86_400, "days"), (3600, "hours"), (60, "minutes"))
    unit, name = next(((unit, name) for unit, name in units if seconds >= 2 * unit), (1, "s"))
    return f"for {round(seconds / unit, 1):,g} {name}"


def _between(topic: Topic, survey: Survey) -> Finding:
    answers = [each.answer for each in survey.asked]
    stands = next((found for answer in answers if (found := between(answer))), None)
    said = dict.fromkeys(answer.cache for answer in answers if answer.cache)
    if not stands and not said:
        return topic.ok("delivery.between", "nothing that tells of itself stands between")
    told = f": {'; '.join(list(said)[:4])}" if said else ""
    return topic.ok("delivery.between", f"{stands.name if stands else 'a cache'} stands between{told}")


def _encoding(topic: Topic, survey: Survey) -> Iterator[Finding]:
    packed = [each.answer for each in survey.images if each.answer.header("Content-Encoding") not in {"", "identity"}]
    if packed:
        yield topic.warning(
            "delivery.encoding",
            f"images come packed once more (Content-Encoding: {packed[0].header('Content-Encoding')}): work for "
            "nothing, and without ranges",
            "take image/* out of gzip_types (or brotli_types, or the CDN's compression): images are compressed",
        )
