from __future__ import annotations

import pytest

from jwstdask.cli.main import main
from tests.program.conftest import complete, dithers, field_of, quiet
from tests.simulate.conftest import small_cache, small_program
from tests.using import crds_of

__all__ = ["complete", "dithers", "field_of", "quiet", "small_cache", "small_program"]


@pytest.fixture
def command(field_of, capsys):
    """``command("plan", ...)``: exit status and what was printed to both streams, with the references of the field."""

    def run(*arguments):
        with crds_of(field_of.cache):
            status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run
