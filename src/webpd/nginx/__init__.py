"""The configuration by which nginx serves the sidecars."""
