"""A process that notes without end, for tests that kill it or read beside it."""

import subprocess
import sys
from pathlib import Path

_WRITER = """
import itertools, sys
from tests.ledger.history_contract import event
from webpd.ledger.sqlite import SqliteLedger
history = SqliteLedger(sys.argv[1]).history
for number in itertools.count(int(sys.argv[2])):
    history.note([event(f"{number:09}-{m}.jpg") for m in range(5)])
    if number % 200 == 199:
        history.flush()
        print(number, flush=True)
"""


def writing(file: Path, first: int = 0) -> "subprocess.Popen[str]":
    """Start it: batches of five images, counted from ``first`` on; every 200 it flushes and tells the last number."""
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(file), str(first)], stdout=subprocess.PIPE, text=True)
