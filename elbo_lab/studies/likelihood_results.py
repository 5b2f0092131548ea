"""The results of the study likelihoods as tables."""

from typing import Any

from elbo_lab.reports import documents
from elbo_lab.studies.likelihood_analysis import PRIOR
from elbo_lab.sweeps import sweep_reporting

_NUMBERS = (
    *("bias", "bias_error", "sd", "norm", "cosine"),
    *("effective", "underflow", "log_ratio"),
)
_ESTIMATE = {"estimate": str, "kl": float, "kl_of_posterior": float, "log_px_z": float}
_ESTIMATE |= {name: list[float] for name in _NUMBERS}
_MODEL = {
    "latent_dim": int,
    "data_dim": int,
    "log_px": float,
    "draws": list[int],
    "estimates": list[_ESTIMATE],
}
# Stored results, as json_files checks them.
KIND = {"examples": int, "repeats": int, "models": list[_MODEL]}
_Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def with_all_estimates(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The models in which all is measured; the others have draws from the prior alone."""
    return [model for model in results["models"] if len(model["estimates"]) > 1]


def estimates_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of biases and standard deviations."""
    rows = []
    for model in with_all_estimates(results):
        for estimate in model["estimates"]:
            pairs = zip(estimate["bias"], estimate["sd"], strict=True)
            cells = [f"{_decimal(bias)} ({_decimal(sd)})" for bias, sd in pairs]
            kls = estimate["kl_of_posterior"], -estimate["kl"]
            name = (str(model["latent_dim"]), estimate["estimate"])
            rows.append((*name, *map(_decimal, kls), *cells))
    draws = results["models"][0]["draws"]
    head = ("L", "draws from q", "KL(p(z|x) || q)", "-KL(q || p(z|x))")
    return (*head, *(f"K = {k:,}" for k in draws)), rows


def gradients_table(results: dict[str, Any]) -> _Table:
    """Head and rows of the table of gradients, of the greatest K with draws from the prior."""
    rows = []
    for model in results["models"]:
        estimate = next(e for e in model["estimates"] if e["estimate"] == PRIOR)
        last = {name: estimate[name][-1] for name in _NUMBERS}
        rows.append(
            (
                str(model["latent_dim"]),
                str(model["data_dim"]),
                f"{model['log_px']:.1f}",
                f"{estimate['log_px_z']:.1f}",
                f"{last['effective']:.1f}",
                f"{100 * last['underflow']:.0f}%",
                _power_of_ten(last["log_ratio"]),
                f"{last['norm']:.2f}",
                _decimal(last["cosine"]),
            )
        )
    head = ("L", "D", "log p(x)", "log p(x|z)", "effective draws", "p^ = 0 in float32")
    gradients = ("gradient of p^ / exact", "of log p^ / exact", "cosine")
    return (*head, *gradients), rows


def _decimal(value: float) -> str:
    """Two decimals; 0.00 for what rounds to it from below."""
    return "0.00" if abs(value) < 0.005 else f"{value:.2f}"


def _power_of_ten(exponent: float) -> str:
    return f"10^{exponent:.1f}".replace("^-0.0", "^0.0")


def estimates_note(results: dict[str, Any]) -> str:
    """The explanation of the table of estimates."""
    errors = [
        error
        for model in with_all_estimates(results)
        for estimate in model["estimates"]
        for error in estimate["bias_error"]
    ]
    return (
        "Bias of the estimate of log p(x), and in brackets its standard deviation, in nats; L "
        f"latents and D = L values; {results['examples']} examples, {results['repeats']:,} repeats "
        f"of each estimate (standard errors of the biases are at most {max(errors):.2f}). KLs: in "
        "closed form, means over examples. -KL(q || p(z|x)) is the exact bias of one draw; about "
        "exp(KL(p(z|x) || q)) draws are needed."
    )


def gradients_note(results: dict[str, Any]) -> str:
    """The explanation of the table of gradients."""
    most = results["models"][0]["draws"][-1]
    return (
        f"p^ = 1/K sum_k p(x|z_k), {most:,} draws from the prior. log p(x|z): mean over draws. "
        "Gradients are by the weights W of the generation network. Gradient of p^ / exact: median "
        "ratio of its norm to that of p(x)'s gradient. Of log p^ / exact: ratio of the root mean "
        "square norms. Cosine: mean, of the gradients of log p^ and log p(x)."
    )


def text(results: dict[str, Any]) -> str:
    """The tables for a terminal."""
    parts = []
    for table, note in (
        (estimates_table(results), estimates_note(results)),
        (gradients_table(results), gradients_note(results)),
    ):
        head, rows = table
        parts += ["\n".join(sweep_reporting.aligned([head, *rows])), note]
    return "\n\n".join(parts)


def markdown(content: dict[str, Any] | None) -> str:
    """The tables for a document; content: that of the study's file, None without one."""
    if content is None:
        return "No study is stored yet."
    results = content["results"]
    return "\n\n".join(
        [
            documents.table(*estimates_table(results)),
            estimates_note(results),
            documents.table(*gradients_table(results)),
            gradients_note(results),
            f"Device: {content['device']}.",
        ]
    )
