"""All studies by name."""

from elbo_lab.studies import (
    ablate_protocol,
    autoencoder,
    codebooks,
    collapse,
    discrete,
    disentangle,
    fast_protocol,
    features,
    information,
    labels,
    li_turner2016,
    likelihoods,
    maddison2017,
    mixtures,
    rainforth2018,
    table1,
    tighter_bounds,
    time_to_nll,
    tucker2018,
)
from elbo_lab.studies.study import Study

_MODULES = (
    table1,
    ablate_protocol,
    tighter_bounds,
    fast_protocol,
    time_to_nll,
    rainforth2018,
    tucker2018,
    li_turner2016,
    maddison2017,
    mixtures,
    features,
    labels,
    likelihoods,
    autoencoder,
    discrete,
    information,
    collapse,
    disentangle,
    codebooks,
)
STUDIES: dict[str, Study] = {module.STUDY.name: module.STUDY for module in _MODULES}
