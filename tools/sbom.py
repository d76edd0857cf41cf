"""What a release is made of: an SBOM (CycloneDX 1.6, JSON) of a wheel and of all that it needs.

cyclonedx-py lists what a clean environment holds in which the wheel was installed: versions, licences, who needs whom.
Two things are told here instead: what we ourselves need (it takes the extras' needs for ours), with the versions that
would do as well; and nothing of where on this machine it was made.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib
import uuid
import venv
from collections.abc import Sequence
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Json = dict[str, Any]


def sbom(project: pathlib.Path, files: Sequence[pathlib.Path]) -> str:
    """The SBOM of a release's files, of which the last is the wheel. `project`: its pyproject.toml."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    needs = [Requirement(text) for text in tomllib.loads(project.read_text())["project"]["dependencies"]]
    text = json.dumps(told(listed(files[-1]), needs, files), indent=2, sort_keys=True) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the SBOM is not what CycloneDX 1.6 asks for: {wrong}")
    return text


def listed(wheel: pathlib.Path) -> Json:
    """What an environment holds in which nothing but the wheel was installed."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)
        python = os.path.join(folder, "bin/python")
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
        subprocess.run([*pip, "install", str(wheel)], check=True)
        tool = [
            sys.executable,
            "-m",
            "cyclonedx_py",
            "environment",
            "--output-reproducible",
            "--spec-version",
            "1.6",
            python,
        ]
        found: Json = json.loads(subprocess.run(tool, check=True, stdout=subprocess.PIPE).stdout)
    return found


def told(found: Json, needs: Sequence[Requirement], files: Sequence[pathlib.Path]) -> Json:
    """The same with the wheel as its subject, and its needs as pyproject.toml states them."""
    (ours,) = [one for one in found["components"] if one["name"] == "tokenops"]
    found["components"].remove(ours)
    ranges = {canonicalize_name(one.name): str(one.specifier) for one in needs}
    direct = {canonicalize_name(one["name"]): one for one in found["components"] if canonicalize_name(one["name"]) in ranges}
    if missing := ranges.keys() - direct.keys():
        raise ValueError(f"needed, and not installed with the wheel: {', '.join(sorted(missing))}")
    for name, one in direct.items():
        one.setdefault("properties", []).append({"name": "tokenops:requires", "value": ranges[name]})
    for one in found["dependencies"]:
        if one["ref"] == ours["bom-ref"]:
            one["dependsOn"] = sorted(each["bom-ref"] for each in direct.values())
    ours |= {"type": "application", "purl": f"pkg:pypi/tokenops@{ours['version']}"}
    ours["externalReferences"] = [
        {"type": "distribution", "url": path.name, "hashes": [{"alg": "SHA-256", "content": sha256(path)}]} for path in files
    ]
    found["metadata"]["component"] = ours
    content = json.dumps(found, sort_keys=True)
    return found | {"serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, content).urn}


def sha256(path: pathlib.Path) -> str:
    """A file's checksum."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
