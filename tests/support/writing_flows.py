"""A process that writes made flows into a store: `python -m support.writing_flows FILE FLOWS BATCH [max_bytes] [file size limit]`.

It prints how many flows are in the file after each batch, and ends with its sink's counts.
"""

import itertools
import os
import sys
import time

from soth_mitm.observe import SqliteSink
from support.made_flows import mixed, sink_info


def main(path: str, flows: int, batch: int, max_bytes: int = 1 << 30, file_size: int = 0) -> None:
    """Write `flows` flows, 0 for as many as there is time for."""
    if file_size:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    sink = SqliteSink(path, max_bytes=max_bytes, min_free_bytes=0, max_age=1e10)
    sink.open(sink_info(pid=os.getpid(), started=time.time()))
    print("open", flush=True)
    done = 0
    for first in itertools.count(1, batch):
        if flows and first > flows:
            break
        sink.accept(list(mixed(batch, seed=first, first_id=first)))
        done += batch
        print(done, flush=True)
    writer = sink._writer
    assert writer is not None
    print("counts", writer.offered, writer.stored, writer.lost, flush=True)
    sink.close(5)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
