"""What the user asked for: layers of parameters, folders, context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Layer:
    """Parameters from one origin.

    Attributes
    ----------
    origin
        Where they come from: a file name, ``command line``, ``call``.
    parameters
        Of the pipeline, or of a step that runs alone.
    steps
        Step name in the pipeline to its parameters.
    name
        What a parameter file calls the step; the suffix of the products of a step that runs alone.
    """

    origin: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Settings:
    """One request.

    Attributes
    ----------
    layers
        Parameters, lowest precedence first; CRDS parameter references come below all of them.
    parameter_references
        Whether CRDS ``pars-*`` references are used (``.call`` and the command line do, ``.run`` does not).
    context
        CRDS context; None for ``CRDS_CONTEXT`` or the operational one.
    output_dir
        Folder of products.
    save
        Whether products are written.
    standalone
        A step that runs alone ignores its ``skip`` parameter, as in jwst.
    """

    layers: tuple[Layer, ...] = ()
    parameter_references: bool = True
    context: str | None = None
    output_dir: str | None = None
    save: bool = True
    standalone: bool = True
