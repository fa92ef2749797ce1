"""The journal: what a server must not forget of its durable runs.

Import its modules, not this package: `values` needs nothing, the rest needs SQLAlchemy.
"""
