"""All studies by name."""

from elbo_lab.studies import ablate_protocol, tighter_bounds
from elbo_lab.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (ablate_protocol.STUDY, tighter_bounds.STUDY)
}
