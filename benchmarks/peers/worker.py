"""One peer in a process of its own, which computes only when it is told to:

    python -m benchmarks.peers.worker ROW FOLDER STEPS REPLICATES

It says `{}` when it is ready, takes lines of words from its standard input, and answers each with a
line of JSON.

train N       N calls of STEPS steps: seconds
bound N       N draws of the mean L_k of the task's images: values
evaluate N    L_5000 of N images: seconds, value
memory        peak resident memory so far: MB
"""

import importlib
import json
import os
import pathlib
import re
import sys
import time
from typing import Any

from benchmarks.peers import ROWS
from benchmarks.peers.common import Peer, Task, read_task


def peak_memory() -> float:
    """Linux's high-water mark of this process, MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6


def answer(task: Task, peer: Peer, words: list[str]) -> dict[str, Any]:
    """What a line asks for."""
    what, number = words[0], int(words[1]) if len(words) > 1 else 0
    if what == "bound":
        return {"values": [peer.bound() for _ in range(number)]}
    if what == "memory":
        return {"mb": peak_memory()}
    start = time.perf_counter()
    if what == "evaluate":
        return {
            "value": peer.log_likelihood(task.x[:number]),
            "seconds": time.perf_counter() - start,
        }
    for _ in range(number):
        peer.train()
    return {"seconds": time.perf_counter() - start}


def main(row: str, folder: str, steps: str, replicates: str) -> None:
    """Answers until its input ends."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task = read_task(folder, steps=int(steps), replicates=int(replicates))
    module = importlib.import_module(f"benchmarks.peers.{ROWS[row].module}")
    peer = module.make(task, **ROWS[row].options)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(task, peer, line.split())), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
