"""The packages that other engines' prices come in: downloaded by pip, never installed, never run.

Only the data file is read out of a wheel, and only if it is the very file that the wheel's own RECORD has the checksum of
(pip compares the wheel with the registry's).
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

from tokenops import price_genai, price_litellm
from tokenops.price_tables import Data, Unusable


class Engine(NamedTuple):
    """Where an engine's prices stand, and how they are read."""

    source: str
    package: str
    file: str
    models: Callable[[bytes], tuple[dict[str, list[Data]], dict[str, int]]]


ENGINES = (
    Engine("litellm", price_litellm.LITELLM_PACKAGE, price_litellm.LITELLM_FILE, price_litellm.litellm_models),
    Engine("genai", price_genai.GENAI_PACKAGE, price_genai.GENAI_FILE, price_genai.genai_models),
)
# pip gives up by itself; this is for one that hangs.
_PATIENCE_S = 600


def downloaded(engine: Engine, folder: str) -> str:
    """The newest wheel of an engine's package, in a folder. Raises Unusable."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        folder,
        engine.package,
    ]
    try:
        done = subprocess.run(
            [*command, "--quiet", "--disable-pip-version-check"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"pip download {engine.package}: {error}; check Python's pip and the network") from None
    found = glob.glob(os.path.join(glob.escape(folder), f"{engine.package.replace('-', '_')}-*.whl"))
    if done.returncode or not found:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no wheel came"]
        raise Unusable(f"pip download {engine.package}: {said[0]}; check the network and pip's settings")
    return found[0]


def reduced(engine: Engine, wheel: str, captured: str) -> tuple[Data, dict[str, list[Data]]]:
    """What a snapshot says of a wheel, and its models. Raises Unusable."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = _recorded(archive, engine.file)
            license_ = _license(archive)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise Unusable(f"{os.path.basename(wheel)}: {error}; it is no wheel of {engine.package}") from None
    models, left_out = engine.models(data)
    about: Data = {"package": engine.package, "version": os.path.basename(wheel).split("-")[1], "captured": captured}
    about |= {"file": engine.file, "file_sha256": hashlib.sha256(data).hexdigest(), "license": license_}
    return about | {"left_out": left_out}, models


def _recorded(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of a wheel, if its checksum is the one that the wheel records. Raises Unusable, KeyError."""
    data = archive.read(name)
    listed = next((one for one in archive.namelist() if one.endswith(".dist-info/RECORD")), "")
    rows = csv.reader(io.StringIO(archive.read(listed).decode()))
    recorded = next((row[1] for row in rows if row and row[0] == name), "")
    known = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    if recorded != f"sha256={known}":
        raise Unusable(f"{name}: its checksum is not the one in the wheel's RECORD; download it again")
    return data


def _license(archive: zipfile.ZipFile) -> str:
    """MIT, as the wheel's own licence says. Raises Unusable: another licence would have to be looked at first."""
    names = [name for name in archive.namelist() if ".dist-info/" in name and "LICENSE" in name.upper()]
    if any("Permission is hereby granted, free of charge" in archive.read(name).decode(errors="replace") for name in names):
        return "MIT"
    raise Unusable("the package's licence is not MIT any more; look at it before its data is kept here")


def fetched(captured: str) -> list[tuple[Engine, Data, dict[str, list[Data]]]]:
    """All engines' newest prices, downloaded into a folder that is gone afterwards. Raises Unusable."""
    with tempfile.TemporaryDirectory(prefix="tok-price-") as folder:
        return [(engine, *reduced(engine, downloaded(engine, folder), captured)) for engine in ENGINES]
