"""Errors that name the exposure, the step, the place and the remedy."""

from __future__ import annotations

import os


class JwstdaskError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    message
        What is wrong.
    remedy
        What the user can do about it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message.rstrip('.')}. {remedy[0].upper()}{remedy[1:]}" if remedy else message)

    def __reduce__(self):
        return type(self), (self.message, self.remedy)


class _FileError(JwstdaskError):
    """An error that belongs to one file."""

    def __init__(self, path: str | os.PathLike[str], message: str, remedy: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = message
        super().__init__(f"{self.path}: {message}", remedy)

    def __reduce__(self):
        return type(self), (self.path, self.reason, self.remedy)


class InputError(_FileError):
    """An input file cannot be used: truncated, not FITS, wrong shape, wrong telescope, missing keyword."""


class ReferenceFileError(_FileError):
    """A reference file is missing, truncated, unreadable or does not fit the exposure."""


class ProductError(_FileError):
    """A product cannot be written: read-only folder, full disk."""


class ParameterError(JwstdaskError):
    """A parameter is unknown, has the wrong type or is out of range."""


class PlanError(JwstdaskError):
    """No plan can be made for the inputs: nothing to do, no such pipeline, mixed exposure types."""


class ClusterError(JwstdaskError):
    """A cluster cannot be started or reached, or has no workers any more."""


class StepError(JwstdaskError):
    """A step failed on an exposure.

    Parameters
    ----------
    exposure
        Name of the exposure.
    step
        Alias of the step.
    message, remedy
        See :class:`JwstdaskError`.
    place
        Where in the exposure, such as ``rows 128:256``.
    """

    def __init__(self, exposure: str, step: str, message: str, remedy: str = "", place: str = "") -> None:
        self.exposure, self.step, self.reason, self.place = exposure, step, message, place
        where = f" ({place})" if place else ""
        super().__init__(f"{exposure}: {step}{where}: {message}", remedy)

    def __reduce__(self):
        return type(self), (self.exposure, self.step, self.reason, self.remedy, self.place)


class StepUndone(Exception):
    """A step cannot be done on an exposure, which is left as it was; the pipeline goes on.

    The message is the reason.

    Parameters
    ----------
    reason
        Why.
    status
        What is recorded, if not what the step records otherwise.
    """

    def __init__(self, reason: str, status: str | None = None) -> None:
        self.status = status
        super().__init__(reason)
