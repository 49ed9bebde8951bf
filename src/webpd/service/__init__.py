"""The service that never ends: every root watched, its images worked on, its mount kept an eye on."""
