"""All studies by name."""

from elbo_lab.studies import ablate_protocol, table1, tighter_bounds
from elbo_lab.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (table1.STUDY, ablate_protocol.STUDY, tighter_bounds.STUDY)
}
