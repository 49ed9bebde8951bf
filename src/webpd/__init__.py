"""WebP Converter Service for CDN servers: a WebP sidecar beside every JPEG and PNG of a tree."""

__version__ = "0.1.0"
