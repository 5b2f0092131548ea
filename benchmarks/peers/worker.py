"""The process of one peer, which computes only on request:

    python -m benchmarks.peers.worker ROW FOLDER STEPS REPLICATES [CORE]

It prints `{}` when it is ready, reads requests from standard input, one a line, and answers each
with a line of JSON:

train N       N calls of STEPS steps: {"seconds"}
bound N       N draws of the mean L_k of the task's images: {"values"}
evaluate N    L_5000 of N images: {"seconds", "value"}
sample N      draws of a batch of examples, the first N values of each: {"seconds"}
restart       goes back to the task's parameters: {}
memory        peak resident memory so far: {"mb"}
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
    """Carries out a request, the words of a line, and returns the answer."""
    request, number = words[0], int(words[1]) if len(words) > 1 else 0
    if request == "bound":
        return {"values": [peer.bound() for _ in range(number)]}
    if request == "memory":
        return {"mb": peak_memory()}
    if request == "restart":
        peer.restart()
        return {}
    start = time.perf_counter()
    if request == "evaluate":
        value = peer.log_likelihood(task.x[:number])
        return {"value": value, "seconds": time.perf_counter() - start}
    if request == "sample":
        peer.sample(number)
        return {"seconds": time.perf_counter() - start}
    for _ in range(number):
        peer.train()
    return {"seconds": time.perf_counter() - start}


def main(row: str, folder: str, steps: str, replicates: str, core: str = "") -> None:
    """Answers requests until standard input is closed."""
    if core:
        os.sched_setaffinity(0, [int(core)])
    # Standard output becomes standard error, so that what libraries print is not read as an answer.
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
