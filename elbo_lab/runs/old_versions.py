"""Defaults for what the summaries of earlier versions lack."""

from typing import Any

# The quantities before summaries named them, each of one number per example.
_MEASURED = ("log_likelihood", "iwae", "elbo", "kl", "reconstruction", "effective_sample_size")
_TERMS = ("bound", "kl", "reconstruction")


def completed(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary with the fields of this version: terms, headline, figures, shapes of what was
    measured, and the kind of the data.
    """
    latent_dims = summary["config"].get("latent_dims", ())
    figures = ["learning_curves", "samples", "reconstructions", "active_units"]
    if list(latent_dims) == [2]:
        figures += ["latent_space", "latent_grid"]
    number, au_images = summary["data"]["test_images"], summary["config"].get("au_images")
    measured = {name: [number] for name in _MEASURED}
    for i, size in enumerate(latent_dims, 1):
        measured[f"means_{i}"] = [number, size]
        if au_images:
            measured[f"train_means_{i}"] = [au_images, size]
    defaults = {
        "terms": list(_TERMS),
        "headline": "log_likelihood",
        "figures": figures,
        "measured": measured,
    }
    return defaults | summary | {"data": {"kind": "image"} | summary["data"]}
