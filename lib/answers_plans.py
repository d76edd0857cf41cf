"""Answers what plans are worth: what a percent of each limit buys, which windows open and close, which plan would fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tokenops import answers
from tokenops.session import BadRequest, Log

if TYPE_CHECKING:
    from tokenops.events import Event


def worth(
    log: Log, provider: str = "", by: str = "window", progress: Callable[[int, int], None] = answers.ignore
) -> list[Event]:
    """What one percent of each limit is worth at list price, of one provider or of all; rows as limit_percent makes them.

    `progress` is called with how many of how many days are read. Raises BadRequest, OSError.
    """
    from tokenops import limit_log, limit_percent

    try:
        fields = limit_percent.fields(by)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    rises = limit_log.rises(log.folder, log.catalogue(), log.now, progress)
    rows = limit_percent.rows((rise for rise in rises if provider in ("", rise.key.provider)), log.now, fields)
    return [row | {"as_of": log.as_of} if log.as_of else row for row in rows]
