"""Loads the catalogue: YAML files of facts that change without code, compiled once into a cache.

Loading 262 models from YAML takes 30 ms, from JSON 1.5 ms, so each subject is compiled into the cache directory under
the digest of its sources. If the copy is missing or cannot be written, the sources are read.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tokenops import datadir, light, regular

FOLDER = os.path.join(os.path.dirname(os.path.realpath(__file__)), "catalog")
# Raise it when a compiler returns something else for the same sources.
FORMAT = "4"


class Malformed(ValueError):
    """A YAML file that cannot be used: names file, line and remedy."""


def cache_folder() -> str:
    """Where compiled copies live."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "tokenops")


def parse(text: bytes, name: str) -> Any:
    """The data of one YAML document. Raises Malformed, also for a duplicate key."""
    import yaml

    try:
        data = yaml.load(text, Loader=_loader())
    except RecursionError:
        data = _TOO_DEEP
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise Malformed(f"{name}{line}: {error.problem or error.context}; correct the line") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Malformed(f"{name}: {error}; save it as UTF-8 text") from None
    if is_nested(data, _MOST_LEVELS):
        raise Malformed(f"{name}: values are nested more than {_MOST_LEVELS} deep; no setting needs that: correct it")
    return data


# No file of ours has ten; what is deeper than 254 cannot be written as JSON.
_MOST_LEVELS = 64
_TOO_DEEP: list[Any] = []
_TOO_DEEP.append(_TOO_DEEP)


def is_nested(value: Any, most: int) -> bool:
    """Whether arrays and objects are nested more than so many levels deep."""
    level = [value]
    for _ in range(most + 1):
        level = [
            item for part in level if type(part) in (dict, list) for item in (part.values() if type(part) is dict else part)
        ]
        if not level:
            return False
    return True


@functools.cache
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """Refuses duplicate keys, and keeps times and numbers with a point as text."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[object] = set()
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    continue
                name = self.construct_object(key, deep=True)
                if name in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} appears twice", key.start_mark)
                seen.add(name)
            return super().construct_mapping(node, deep)

    keep_text = yaml.constructor.SafeConstructor.construct_yaml_str
    Loader.add_constructor("tag:yaml.org,2002:timestamp", keep_text)
    Loader.add_constructor("tag:yaml.org,2002:float", keep_text)
    return Loader


def line_of(text: bytes, keys: tuple[str | int, ...]) -> int:
    """The line in a YAML document of the entry that some keys lead to, or of the last key that exists."""
    import yaml

    node = yaml.compose(text, Loader=_loader())
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            entries = [(k, v) for k, v in node.value if k.value == str(key)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            entries = [(node.value[key], node.value[key])]
        else:
            entries = []
        if not entries:
            break
        at, node = entries[0]
        line = at.start_mark.line + 1
    return line


def compile_sources(
    subject: str, sources: Mapping[str, bytes], compile_: Callable[[dict[str, Any]], Any]
) -> tuple[Any, str]:
    """What `compile_` returns for the parsed sources (name -> text), and their digest; from the cache if it is there."""
    hasher = light.blake2b(FORMAT.encode(), digest_size=8)
    for name in sorted(sources):
        hasher.update(b"%d %s %d " % (len(name), name.encode(), len(sources[name])) + sources[name])
    digest = hasher.hexdigest()
    folder = cache_folder()
    path = os.path.join(folder, f"{subject}-{digest}.sealed.json")  # version 0.1.0 wrote copies without a checksum
    try:
        with open(path, "rb", opener=regular.opener) as file:
            return datadir.unseal(file.read()), digest
    except (OSError, ValueError):
        pass
    compiled = compile_({name: parse(text, name) for name, text in sources.items()})
    with contextlib.suppress(TypeError):  # a number of more than 64 bits; what uses it says what is wrong with it
        _keep(folder, path, subject, orjson.dumps(compiled))
    return compiled, digest


def _keep(folder: str, path: str, subject: str, data: bytes) -> None:
    try:
        datadir.replace(
            os.path.join(datadir.ensure_folder(folder), os.path.basename(path)), datadir.seal(data), durable=False
        )
        for old in glob.glob(os.path.join(glob.escape(folder), f"{subject}-*.json")):
            if old != path:
                os.unlink(old)
    except OSError:
        pass


def sources(pattern: str, folder: str = FOLDER) -> dict[str, bytes]:
    """The catalogue's files that match a pattern, by name below catalog/."""
    texts = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern))):
        with open(path, "rb", opener=regular.opener) as file:
            texts[os.path.relpath(path, folder)] = file.read()
    return texts


@functools.cache
def load(subject: str) -> Any:
    """One small file of the catalogue, `catalog/<subject>.yaml`."""
    name = f"{subject}.yaml"
    data, _ = compile_sources(subject, sources(name), lambda parsed: parsed[name])
    return data
