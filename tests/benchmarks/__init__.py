"""How fast taskd is, beside the floor and beside its peers: ``python -m tests.benchmarks``.

``table`` has the rows: what is measured, beside what, and what is to be reached. Each family of rows is a file
whose functions measure; ``measure`` has the rules of that, ``clients`` the one client program of all sides,
``peers`` the other sides. A peer that is not installed leaves its rows out, and says so.

``watchers`` and ``unmoved`` are programs of their own.
"""
