"""``python -m jwstdask``."""

from __future__ import annotations

import sys

from jwstdask.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
