"""Each root kept right: where to look, and what a look means for the queue and the ledger."""
