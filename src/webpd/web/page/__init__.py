"""The page at ``/``: how the service is, in words and pictures, for those without Grafana."""

from webpd.web.page.routes import page_routes
from webpd.web.page.subject import PageSubject

__all__ = ["PageSubject", "page_routes"]
