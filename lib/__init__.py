"""TokenOps: count, price and forecast what AI coding agents spend.

A flat package of pure functions behind the commands in bin/. Modules import downwards only; the order stands in
docs/architecture.md.
"""

__version__ = "0.1.0"
