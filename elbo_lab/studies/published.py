"""Numbers of published tables, with which ours are compared."""

from typing import NamedTuple


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
