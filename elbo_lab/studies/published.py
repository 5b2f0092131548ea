"""Numbers of published tables, with which ours are compared."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Published(NamedTuple):
    """One cell of a published table."""

    nll: float  # nats per test image, by L_5000
    active_units: str  # of each stochastic layer, from the data up: "16+5"
    verified: bool = True  # False: quoted from elsewhere, not read in the paper


# Burda et al. (2016), Table 1: (data set, stochastic layers, model, k).
TABLE1: dict[tuple[str, int, str, int], Published] = {
    ("mnist", 1, "vae", 1): Published(86.76, "19"),
    ("mnist", 1, "vae", 5): Published(86.47, "20"),
    ("mnist", 1, "vae", 50): Published(86.35, "20"),
    ("mnist", 1, "iwae", 1): Published(86.76, "19"),
    ("mnist", 1, "iwae", 5): Published(85.54, "22"),
    ("mnist", 1, "iwae", 50): Published(84.78, "25"),
    ("mnist", 2, "vae", 1): Published(85.33, "16+5"),
    ("mnist", 2, "vae", 5): Published(85.01, "17+5"),
    ("mnist", 2, "vae", 50): Published(84.78, "17+5"),
    ("mnist", 2, "iwae", 1): Published(85.33, "16+5"),
    ("mnist", 2, "iwae", 5): Published(83.89, "21+5"),
    ("mnist", 2, "iwae", 50): Published(82.90, "26+7"),
    ("omniglot", 1, "vae", 1): Published(108.11, "28", verified=False),
    ("omniglot", 1, "vae", 5): Published(107.62, "28"),
    ("omniglot", 1, "vae", 50): Published(107.80, "28"),
    ("omniglot", 1, "iwae", 1): Published(108.11, "28", verified=False),
    ("omniglot", 1, "iwae", 5): Published(106.12, "34", verified=False),
    ("omniglot", 1, "iwae", 50): Published(104.67, "41", verified=False),
    ("omniglot", 2, "vae", 1): Published(107.58, "28+4", verified=False),
    ("omniglot", 2, "vae", 5): Published(106.31, "30+5"),
    ("omniglot", 2, "vae", 50): Published(106.30, "30+5"),
    ("omniglot", 2, "iwae", 1): Published(107.56, "30+5", verified=False),
    ("omniglot", 2, "iwae", 5): Published(104.79, "38+6", verified=False),
    ("omniglot", 2, "iwae", 50): Published(103.38, "44+7"),
}


class Bound(NamedTuple):
    """A test bound of a published table beside its log-likelihood."""

    value: float  # the IWAE-64 bound, nats per test image
    gap: float  # the bound minus the log-likelihood, as the paper rounds it


_ONE_GAUSSIAN_LAYER = {
    "dataset": "mnist",
    "binarization": "dynamic",
    "model": "mlp",
    "latent_dims": [50],
    "eval_k": 5000,
}


class Comparison(NamedTuple):
    """What a paper reports of models that are trained by several objectives or estimators.

    Keys are the values of a study's cells. The first key is the baseline of the differences.
    """

    source: str
    log_px: Mapping[tuple[str, ...], float]  # test log-likelihoods, nats per image
    # Cells that the paper finds better than the baseline, but gives no number for.
    better: tuple[tuple[str, ...], ...] = ()
    bounds: Mapping[tuple[str, ...], Bound] = {}
    # Settings of all its cells that are no part of their keys, and without which nothing compares.
    settings: Mapping[str, Any] = _ONE_GAUSSIAN_LAYER

    def difference(self, key: tuple[str, ...]) -> float | None:
        """A cell's log-likelihood minus the baseline's, nats; None for the baseline and for a cell
        without a number.
        """
        baseline = next(iter(self.log_px), None)
        if key == baseline or key not in self.log_px:
            return None
        return self.log_px[key] - self.log_px[baseline]


# By the name of the study that trains the same cells.
COMPARISONS: dict[str, Comparison] = {
    # log p(x) by 5,000 draws; 64 draws in a training step of each image.
    "rainforth2018": Comparison(
        "Rainforth et al. (2018), MNIST, 64 draws",
        {
            ("IWAE",): -84.52,
            ("PIWAE(8, 8)",): -84.46,
            ("MIWAE(8, 8)",): -84.97,
            ("CIWAE(0.5)",): -85.24,
            ("VAE",): -86.21,
        },
        bounds={
            ("IWAE",): Bound(-86.11, -1.59),
            ("PIWAE(8, 8)",): Bound(-85.74, -1.28),
            ("MIWAE(8, 8)",): Bound(-85.69, -0.72),
            ("CIWAE(0.5)",): Bound(-86.08, -0.84),
            ("VAE",): Bound(-86.69, -0.47),
        },
    ),
    # The paper's results are curves; its abstract states that DReG improves IWAE.
    "tucker2018": Comparison(
        "Tucker et al. (2018), abstract",
        {},
        better=(("dreg",),),
        settings=_ONE_GAUSSIAN_LAYER | {"k": 64},
    ),
    # One stochastic layer: (model, k).
    "li_turner2016": Comparison(
        "Li and Turner (2016), MNIST, one stochastic layer",
        {
            ("VAE", "5"): -86.47,
            ("IWAE", "5"): -85.41,
            ("VR-max", "5"): -85.42,
            ("VR(0.5)", "5"): -85.50,
            ("VAE", "50"): -86.35,
            ("IWAE", "50"): -84.80,
            ("VR-max", "50"): -84.81,
        },
    ),
    # VIMCO with m = 5: (network, way to train). RWS stands beside, and has no number there.
    "maddison2017": Comparison(
        "Maddison et al. (2017), table 1, VIMCO with m = 5, by 50,000 draws",
        {
            ("200H-784V", "vimco"): -101.9,
            ("200H~784V", "vimco"): -91.4,
            ("200H-200H-784V", "vimco"): -91.7,
            ("200H~200H~784V", "vimco"): -86.4,
        },
        settings={
            "dataset": "mnist",
            "binarization": "fixed",
            "model": "sbn",
            "k": 5,
            "eval_k": 5000,
        },
    ),
}


class Likelihood(NamedTuple):
    """A published log-likelihood of MNIST's binary test images."""

    nll: float  # minus log p(x), or minus its estimate by importance sampling, nats
    binarization: str  # "dynamic": drawn anew at every visit; "static": Larochelle's fixed images
    source: str
    bound: float | None = None  # minus the ELBO, where the source has it too
    verified: bool = True  # False: quoted from memory of the paper, not read there


_PIXELVAE, _IAF = "Gulrajani et al. (2016), table 1", "Kingma et al. (2016), table 1"
_VLAE_STATIC, _VLAE_DYNAMIC = "Chen et al. (2017), table 1", "Chen et al. (2017), table 2"
_VLAE_PARTS = "Chen et al. (2017), parts of the model"

# By the system's name in the table of explicit models. Networks differ from ours in size.
EXPLICIT: dict[str, tuple[Likelihood, ...]] = {
    "vae": (Likelihood(81.08, "dynamic", _IAF, 84.08),),
    "iaf": (
        Likelihood(79.10, "dynamic", _IAF, 80.80),
        Likelihood(79.88, "static", _VLAE_STATIC),
    ),
    "pixelcnn": (Likelihood(81.30, "static", _PIXELVAE),),
    "pixelcnn_short": (Likelihood(87.55, "dynamic", _VLAE_PARTS),),
    "pixelrnn": (
        Likelihood(80.54, "static", "van den Oord et al. (2016), row LSTM", verified=False),
    ),
    "pixelrnn_diagonal": (Likelihood(79.20, "static", _PIXELVAE),),
    "pixelvae": (Likelihood(79.02, "static", _PIXELVAE, 79.66),),
    "pixelvae_short": (Likelihood(79.48, "dynamic", _VLAE_PARTS),),
    "vlae": (
        Likelihood(78.53, "dynamic", _VLAE_DYNAMIC),
        Likelihood(78.94, "dynamic", _VLAE_PARTS),
        Likelihood(79.03, "static", _VLAE_STATIC),
    ),
    "vqvae": (),
}
