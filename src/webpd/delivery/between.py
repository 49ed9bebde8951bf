"""What stands between a site and its visitors, told by its headers, and how it learns to keep two answers for a URL."""

from collections.abc import Callable
from dataclasses import dataclass

from webpd.delivery.answer import Answer

ANY_CACHE = (
    "let what stands between honour `Vary: Accept`, or have in its key whether Accept names image/webp, or not cache "
    "these URLs; then purge it"
)
REFUSED = (
    "the access log of the web server, or of what stands before it, shows who refused: a rule on User-Agent or "
    "Accept, a limit on requests, a firewall"
)


@dataclass(frozen=True, slots=True)
class Between:
    """A CDN or cache. ``cure`` is for one that gives the answer for one browser to another."""

    name: str
    shows: Callable[[Answer], bool]
    cure: str


def between(answer: Answer) -> Between | None:
    """Return what the answer came through, as far as it tells."""
    return next((one for one in _KNOWN if one.shows(answer)), None)


def _server(answer: Answer) -> str:
    return answer.header("Server").lower()


def _has(*names: str) -> Callable[[Answer], bool]:
    return lambda answer: any(answer.header(name) for name in names)


# Sources: developers.cloudflare.com/cache/advanced-configuration/vary-for-images, docs.bunny.net/cdn/vary-cache, the
# CloudFront guide on cache keys, Fastly's header reference, nginx.org on ngx_http_proxy_module.
_KNOWN = (
    Between(
        "Cloudflare",
        lambda answer: bool(answer.header("CF-RAY")) or _server(answer) == "cloudflare",
        "Cloudflare keeps one answer for a URL unless Vary for Images is on (Pro plan or higher; by its API: `PATCH "
        '/zones/ZONE/cache/variants` with {"value": {"jpg": ["image/webp"], "jpeg": ["image/webp"], "png": '
        '["image/webp"]}}); on the free plan a Cache Rule that bypasses the cache for these URLs; then purge it',
    ),
    Between(
        "Bunny",
        lambda answer: _server(answer).startswith("bunnycdn") or bool(answer.header("CDN-PullZone")),
        "in the Pull Zone: Caching > General > Vary Cache > WebP; then purge it",
    ),
    Between(
        "CloudFront",
        _has("X-Amz-Cf-Id", "X-Amz-Cf-Pop"),
        "name the header Accept in the cache policy (a CloudFront Function that makes it one of two values keeps more "
        "hits); then create an invalidation",
    ),
    Between(
        "Fastly",
        lambda answer: answer.header("X-Served-By").startswith("cache-"),
        "Fastly honours Vary: look whether the service's VCL removes it, or changes Accept; then purge it",
    ),
    Between(
        "Akamai",
        lambda answer: _server(answer).startswith("akamai") or bool(answer.header("Akamai-Cache-Status")),
        "let the property's cache ID include whether Accept names image/webp; then purge it",
    ),
    Between(
        "Varnish",
        lambda answer: bool(answer.header("X-Varnish")) or "varnish" in answer.header("Via").lower(),
        "Varnish honours Vary: look whether its VCL unsets beresp.http.Vary or req.http.Accept; then `varnishadm ban`",
    ),
    Between(
        "a cache of nginx",
        _has("X-Cache-Status", "X-Proxy-Cache", "X-Nginx-Cache"),
        "take Vary out of proxy_ignore_headers and proxy_hide_header, or put a map of $http_accept into "
        "proxy_cache_key; then empty its folder (proxy_cache_path)",
    ),
)
