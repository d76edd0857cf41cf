"""TokenOps: count, price and forecast what AI coding agents spend.

A flat package of pure functions behind the commands in bin/. Modules import downwards only; docs/architecture.md shows
the order.
"""

__version__ = "0.1.0"
