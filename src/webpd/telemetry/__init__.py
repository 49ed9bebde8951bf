"""What the service tells of itself: numbers and log lines."""
