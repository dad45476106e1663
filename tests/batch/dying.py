"""`python dying.py STATE INPUT OUTPUT DIGEST NTH`: scores a table and kills itself at its NTH durable step (0: never)."""

import os
import signal
import sys
from pathlib import Path

from batch.builders import a_batch

from gyrostat.batch import output, parts, scoring
from gyrostat.data import streams

streams.BLOCK_BYTES = 4000
nth = int(sys.argv[5])


def counted(function):
    def run(*args, **kwargs):
        global nth
        nth -= 1
        if nth == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return run


parts.Parts.write = counted(parts.Parts.write)
parts.write_atomic = counted(parts.write_atomic)
parts.Parts.remove = counted(parts.Parts.remove)
output.write = counted(output.write)
parts.sync = counted(parts.sync)
scoring.sync_folder = counted(scoring.sync_folder)


def record(scored):
    with (Path(sys.argv[1]) / "told").open("a") as file:
        file.write(f"{scored.id} {scored.n_rows} {scored.output_digest}\n")


wanted = a_batch(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
scored = scoring.score(wanted, record=counted(record), say=lambda line: None)
print(scored.n_taken_up, -nth)
