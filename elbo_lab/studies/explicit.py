"""The table of explicit models, those with a density or a bound of it, on MNIST.

It is no study of `experiments.study`: the systems have settings of their own, and one of them takes
two runs, so that they are no grid. Each is an ordinary run by its command, and
`tools.make_explicit_rows` makes a row of the table from the run's directory (`explicit_results`).
"""

import shlex
from typing import NamedTuple

from elbo_lab.studies.study import Texts

NAME = "explicit"
# Where the commands keep their runs: a folder for each, by the name of the system.
RUNS = "runs/explicit"
# The system that the others are compared with.
BASELINE = "vae"
# After a system's name: its first stage.
FIRST_STAGE = "-codes"


class System(NamedTuple):
    """A system of the table."""

    title: str
    quantity: str  # of `quantities.QUANTITIES`: log p(x) or a lower bound of it
    flags: Texts  # of its run, besides SHARED
    codes: Texts | None = None  # of the run whose codes are its data; None: its data are images
    # K of a second evaluation, of the trained run; None: there is none
    draws: int | None = None
    # The number of the first test images that it is of; its row has how much it adds to the run's
    # own evaluation. None: all, and it takes the place of the run's own.
    examples: int | None = None

    @property
    def nll_draws(self) -> int | None:
        """K of the second evaluation if the NLL is by it; None: it is by the run's own."""
        return self.draws if self.examples is None else None


# The images of all systems, binarized anew at every visit; the test images are drawn once.
SHARED = {"dataset": "mnist", "binarization": "dynamic"}
_VAE = {
    **{"protocol": "fast", "budget": "0.3", "eval_k": "1000"},
    # What goes with a flow: a KL by draws, and the derivative of the whole path.
    **{"objective": "elbo", "k": "1", "kl": "mc", "estimator": "reparam"},
}
_BATCHES = {"batch_size": "50", "learning_rate": "0.003"}
# All networks of pixels have this width.
_PIXELS = {**_BATCHES, "width": "8", "output_width": "16"}
_PIXELVAE = {
    **_PIXELS,
    **{"model": "pixelvae", "latent_dims": "32", "channels": "8,16", "latent_features": "8"},
    "eval_k": "30",
}
# Where a draw takes a millisecond for each image, so that 5,000 of all would take 14 hours.
_FIRST_IMAGES = {"draws": 5000, "examples": 100}
_SHORT = {**_PIXELVAE, "receptive_field": "7", "layers": "3", "epochs": "6"}

SYSTEMS: dict[str, System] = {
    BASELINE: System("VAE, diagonal q(z|x)", "log_likelihood", _VAE, draws=5000),
    "iaf": System("VAE, q(z|x) by IAF", "log_likelihood", {**_VAE, "posterior": "iaf"}, draws=5000),
    "pixelcnn": System(
        "PixelCNN", "log_px", {**_PIXELS, "model": "pixelcnn", "layers": "5", "epochs": "7"}
    ),
    # The kernel of the first layer alone, 7 x 7: the window of the VLAE below.
    "pixelcnn_short": System(
        "PixelCNN, short window",
        "log_px",
        {**_PIXELS, "model": "pixelcnn", "layers": "1", "epochs": "14"},
    ),
    "pixelrnn": System(
        "PixelRNN, row LSTM", "log_px", {**_PIXELS, "model": "pixelrnn", "epochs": "3"}
    ),
    "pixelrnn_diagonal": System(
        "PixelRNN, diagonal BiLSTM",
        "log_px",
        {**_PIXELS, "model": "pixelrnn", "rnn": "diagonal", "epochs": "3"},
    ),
    # The kernels of the first PixelCNN above, 7 x 7 and four times 3 x 3, see 15 x 15.
    "pixelvae": System(
        "PixelVAE",
        "log_likelihood",
        {**_PIXELVAE, "receptive_field": "15", "layers": "5", "epochs": "5"},
        **_FIRST_IMAGES,
    ),
    # VLAE but for its prior.
    "pixelvae_short": System("PixelVAE, short window", "log_likelihood", _SHORT, **_FIRST_IMAGES),
    "vlae": System(
        "VLAE: short window, flow prior",
        "log_likelihood",
        {**_SHORT, "prior": "flow", "kl": "mc"},
        **_FIRST_IMAGES,
    ),
    "vqvae": System(
        "VQ-VAE, PixelCNN over its codes",
        "pair_bound",
        {**_BATCHES, "model": "pixelcnn", "epochs": "10"},
        {"model": "vqvae", "batch_size": "50", "epochs": "5"},
    ),
}


def stages(name: str) -> dict[str, Texts]:
    """The runs of a system in their order: name of the run -> its flags, but for --workdir."""
    system = SYSTEMS[name]
    if system.codes is None:
        return {name: SHARED | system.flags}
    first = f"{name}{FIRST_STAGE}"
    data = {"dataset": f"codes:{RUNS}/{first}"}
    return {first: SHARED | system.codes, name: data | system.flags}


def commands(name: str) -> list[str]:
    """The command lines of a system's runs, which resume them and end at once if they are complete,
    and of the evaluation after them.

    Flags of where the data lie (`--manual_dir`) are left out.
    """
    lines = [
        ["run", *(f"--{flag}={text}" for flag, text in flags.items()), f"--workdir={RUNS}/{run}"]
        for run, flags in stages(name).items()
    ]
    system = SYSTEMS[name]
    if system.draws is not None:
        examples = [] if system.examples is None else [f"--test_examples={system.examples}"]
        lines.append(["evaluate", f"--run={RUNS}/{name}", f"--eval_k={system.draws}", *examples])
    return [
        shlex.join(("python", "-m", f"experiments.{script}", *flags)) for script, *flags in lines
    ]
