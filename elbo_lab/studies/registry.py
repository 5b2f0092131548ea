"""All studies by name."""

from elbo_lab.studies import (
    ablate_protocol,
    fast_protocol,
    table1,
    tighter_bounds,
    time_to_nll,
)
from elbo_lab.studies.study import Study

_MODULES = (table1, ablate_protocol, tighter_bounds, fast_protocol, time_to_nll)
STUDIES: dict[str, Study] = {module.STUDY.name: module.STUDY for module in _MODULES}
