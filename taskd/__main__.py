"""``python -m taskd`` is ``taskd``."""

from __future__ import annotations

from taskd.server import main

if __name__ == "__main__":
    main()
