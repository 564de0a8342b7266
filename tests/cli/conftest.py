"""One small program on the command line."""

from __future__ import annotations

import pytest

from jwstdask.cli.main import main
from tests.using import crds_of


@pytest.fixture(scope="session")
def program(programs):
    """Three dithers of NRCB1, 160 x 160, 2 x 6 groups of BRIGHT2."""
    return programs("bright2")


@pytest.fixture(autouse=True)
def references(programs):
    """The CRDS cache of the program, in use."""
    with crds_of(programs.cache("bright2")):
        yield


@pytest.fixture
def uncal(program):
    return str(program.uncals[0])


@pytest.fixture
def command(capsys):
    """``command("run", ...)``: exit status and what was printed to both streams."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run
