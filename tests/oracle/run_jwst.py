"""Calls of jwst in a process of their own: ``python run_jwst.py CALLS.json``.

The file holds a list of calls: ``class`` ("jwst.pipeline.Detector1Pipeline"), ``input``, ``options`` of ``.call``
and, if it is not that of the process, the CRDS ``environment``.
"""

from __future__ import annotations

import importlib
import json
import sys

from caches import use


def main(path: str) -> None:
    for call in json.load(open(path)):
        use(call.get("environment"))
        module, _, name = call["class"].rpartition(".")
        step = getattr(importlib.import_module(module), name)
        result = step.call(call["input"], configure_log=False, **call["options"])
        del result


if __name__ == "__main__":
    main(sys.argv[1])
