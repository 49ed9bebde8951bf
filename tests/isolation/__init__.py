"""That no picture can do more than cost itself."""
