from __future__ import annotations

from jwstdask.core.dims import counted, integrations_of


def test_integrations_that_intend_does_not_count():
    """As after integrations were added to a file and NINTS alone was changed."""
    meta = {"meta.exposure.nints": 3, "meta.exposure.integration_start": 1, "meta.exposure.integration_end": 1}
    assert integrations_of(counted(meta, (3, 5, 8, 8))) == 3
    assert meta["meta.exposure.integration_end"] == 1
    # A segment, and what has no integrations of its own.
    assert counted(meta, (1, 5, 8, 8)) is meta
    assert counted(meta, (8, 8)) is meta
