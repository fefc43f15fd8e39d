"""taskd: long storage tasks that either completed or were never made.

The rooms of the house and what each may import of the others stand in one table, in
``tests/test_rooms.py``; the promise and its limits stand in README.rst.
"""

from __future__ import annotations

__version__ = "0.1.0"
