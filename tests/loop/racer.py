"""One of two processes that race on one ledger: python racer.py LEDGER NAME; told by lines what to race for.

`go STREAM` keeps it until its run is open and asked for. `freeze STREAM` does so too, but stops itself (SIGSTOP) with the lease
in hand, right before its step is written, and goes on when somebody continues it.
"""

import os
import signal
import sys
import time

from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import reconcile
from gyrostat.retraining.settings import RetrainingSettings

reconcile.TTL_S = 0.15


class Nowhere:
    def look(self, stream, what, key):
        return {}

    def start(self, stream, what, key, inputs, spec): ...

    def show(self, stream, receiver, seq, value): ...


def race(ledger, name, stream, *, is_frozen):
    refused = 0
    append = ledger.append

    def counted(*args, **more):
        nonlocal refused
        try:
            return append(*args, **more)
        except Exception:
            refused += 1
            raise

    acquire, held = ledger.acquire, []

    def remembered(*args, **more):
        held.append(acquire(*args, **more))
        return held[-1]

    ledger.append, ledger.acquire = counted, remembered
    terms = RetrainingSettings(budget=0)
    loop = reconcile.keep(
        stream, name=name, ledger=ledger, world=Nowhere(), terms=lambda *_: (terms, "d")
    )
    while True:
        pause_s = next(loop)
        # Once it has read under its own lease it will write next: the worst place to be stopped.
        if is_frozen and held[-2:] == [1, 1]:
            is_frozen = False
            print("frozen", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
            continue
        facts = reconcile.facts_of(ledger, stream)
        if facts.run and not facts.owes:
            break
        time.sleep(min(pause_s, 0.02))
    ledger.append, ledger.acquire = append, acquire
    print(f"done {refused}", flush=True)


def main():
    path, name = sys.argv[1:]
    ledger = SqliteLedger(path)
    print("ready", flush=True)
    for line in sys.stdin:
        what, stream = line.split()
        race(ledger, name, stream, is_frozen=what == "freeze")


main()
