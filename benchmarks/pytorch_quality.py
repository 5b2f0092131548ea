"""Trains the IWAE paper's model in PyTorch, and evaluates it after given numbers of steps.

    python -m benchmarks.pytorch_quality --manual_dir=mnist --steps=10000,20000,40000

PyTorch runs eagerly on one thread: the IWAE bound of 5 draws, dynamic binarization, batches of
100, Adam at a constant rate of 1e-3. Parameters are initialized and evaluated by this library, as
in `experiments.run`; the training's seconds do not include that.

The results are written to time_to_nll-pytorch.json in --results_dir after each evaluation. The
same command resumes in --workdir, also with further steps. PyTorch is installed by the extra
`peers`.
"""

from absl import flags

from benchmarks import peers
from elbo_lab import configs
from elbo_lab.cli import flag_values, folders, protocols, run_flags
from elbo_lab.configs import Config
from elbo_lab.devices import setup
from elbo_lab.errors import UserError
from elbo_lab.files import write_summary

FILE = "time_to_nll-pytorch.json"
DATASETS = ("mnist", "mnist_small")
# Flags that the command in the results file names; the other ones are folders.
SETTINGS = ("dataset", "steps", "images", "eval_k")


def main() -> int:
    """Trains to each number of steps, evaluates, and writes the results."""
    values = flags.FLAGS
    steps = sorted(flag_values.counts("steps", values.steps))
    if values.dataset not in DATASETS:
        raise UserError(f"--dataset must be one of {', '.join(DATASETS)}; got {values.dataset!r}.")
    peers.require("torch", "benchmarks.pytorch_quality")
    setup.set_up(None, 1, "", False)
    dataset = run_flags.load_data("dataset", values.dataset)
    images = values.images or len(dataset.x_test)
    if images > len(dataset.x_test):
        raise UserError(f"--images must be at most {len(dataset.x_test)}; got {images}.")
    file = folders.create("results_dir", values.results_dir) / FILE
    state = folders.create("workdir", values.workdir) / "state.pt"
    from benchmarks import quality  # imported late: JAX is configured first
    from benchmarks.peers import pytorch_loop

    paper = protocols.PROTOCOLS["burda2015_paper"]
    config = configs.replace(paper, dataset=values.dataset, eval_k=values.eval_k)
    task, nll = quality.prepare(config, dataset, images)
    training = pytorch_loop.Training(task)
    evaluated = {"dataset": values.dataset, "images": images, "eval_k": values.eval_k}
    notes = training.load(state) if state.exists() else {**evaluated, "points": {}}
    quality.check_resumed(notes, evaluated, training.step, steps, values.workdir)
    points = notes["points"]
    for step in steps:
        if step not in points:
            training.train_to(step)
            training.save(state, notes)  # an interrupted evaluation does not lose the training
            seconds = training.seconds, training.cpu_seconds
            points[step] = quality.point(step, *seconds, *nll(training.arrays()))
            training.save(state, notes)
        print(quality.line(points[step]), flush=True)
        reached = [points[s] for s in steps if s in points]
        write_summary(file, {**evaluated, **quality.summary(command(values), reached)})
    return 0


def command(values: flags.FlagValues) -> str:
    """The command with the flags that were given, without folders."""
    words = [f"--{name}={values[name].value}" for name in SETTINGS if values[name].present]
    return " ".join(["python -m benchmarks.pytorch_quality", *words])


def define() -> None:
    """Defines the script's flags."""
    flags.DEFINE_string("steps", "10000,20000,40000,80000", "steps after which it is evaluated")
    flags.DEFINE_string("dataset", "mnist", f"one of {', '.join(DATASETS)}")
    flag_values.define_optional_count(
        "images", "evaluate this many test images (if not given, all)", least=1
    )
    flags.DEFINE_integer("eval_k", Config().eval_k, "draws per test image of the NLL", 1)
    flags.DEFINE_string("workdir", "runs/pytorch_quality", "folder from which it resumes")
    flags.DEFINE_string("results_dir", "results", "folder of the results file")
    run_flags.define_run("data_dir", "manual_dir")


if __name__ == "__main__":
    define()
    run_flags.run(main, __doc__)
