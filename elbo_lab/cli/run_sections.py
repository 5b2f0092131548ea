"""Descriptions and defaults of the flags of a run that are not fields of its Config."""

import os

from elbo_lab.cli import protocols

RUN_SECTION = {
    "workdir": "the run's directory (if not given, a name in runs/ made from the configuration)",
    "overwrite": "delete an earlier run in the directory, and start again",
    "compilation_cache_dir": "folder of compiled programs, which make the next start fast; empty "
    "for none",
    "tensorboard": "write TensorBoard events too",
    "platform": "the device to run on, e.g. cpu or cuda (if not given, the best available one)",
    "data_dir": "folder of prepared data sets (if not given, the default of tensorflow-datasets)",
    "manual_dir": "folder with the data set's official files, used instead of a download",
    "shard_batch": "shard each batch over the devices that --replicates leaves free: true, false, "
    "or auto (true on GPUs, TPUs and with several processes, false on one CPU)",
    "stream": "stream the training images to the device while it trains: true (an uncompressed "
    ".npz is then read from disk, not loaded), false, or auto (true on GPUs and TPUs if the images "
    "would take a quarter of the device's memory)",
    "distributed": "train in several processes with jax.distributed; start each by the same "
    "command, by SLURM, Open MPI or on a TPU pod, or with the next three flags",
    "coordinator_address": "HOST:PORT at which process 0 listens",
    "num_processes": "number of processes",
    "process_id": "index of this process, from 0; process 0 writes files and prints",
    "initialization_timeout": "seconds to wait for the other processes",
}
RUN_DEFAULTS = {
    "workdir": None,
    "overwrite": False,
    "compilation_cache_dir": os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "elbo_lab", "xla"
    ),
    "tensorboard": True,
    "platform": None,
    "data_dir": None,
    "manual_dir": None,
    "shard_batch": "auto",
    "stream": "auto",
    "distributed": False,
    "coordinator_address": None,
    "num_processes": None,
    "process_id": None,
    "initialization_timeout": 60,
}
# The flags of a run in several processes; scripts that start processes themselves leave them out.
DISTRIBUTED = (
    "distributed",
    "coordinator_address",
    "num_processes",
    "process_id",
    "initialization_timeout",
)
PROTOCOL_SECTION = {
    "protocol": "a protocol, whose settings replace the defaults below; flags that are given "
    f"override it ({', '.join(protocols.PROTOCOLS)})",
    "budget": "train for this multiple of the epochs; the learning-rate schedule keeps its shape",
    "print_config": "print the configuration as JSON, and exit",
}
PROTOCOL_DEFAULTS = {"protocol": None, "budget": 1.0, "print_config": False}
