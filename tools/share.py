"""Man pages and completions of all commands, made of their manuals: python tools/share.py DIRECTORY (make man).

    DIRECTORY/man/man1/tok-cost.1                        and so on
    DIRECTORY/bash-completion/completions/tok-cost
    DIRECTORY/zsh/site-functions/_tokenops
    DIRECTORY/fish/vendor_completions.d/tok-cost.fish

These are the places, below share/, where man and the shells look by themselves.
"""

from __future__ import annotations

import datetime
import pathlib
import sys

from version import ROOT, moment

sys.path.insert(0, str(ROOT / "bin"))

from tokenops import __version__, cli_words, manual


def files() -> dict[str, str]:
    """Every file, by its path below share/."""
    manuals = manual.manuals(str(ROOT / "bin"))
    names = [one.name for one in manuals]
    date = datetime.datetime.fromtimestamp(moment(), datetime.UTC).date().isoformat()
    words = cli_words.aliases()
    made = {"zsh/site-functions/_tokenops": manual.script("zsh", manuals, words)}
    for one in manuals:
        # bash reads a file when its command is completed first, so each has a function of its own.
        bash = manual.script("bash", manuals, words, [one.name]).replace("_tokenops", f"_{one.name.replace('-', '_')}")
        made[f"man/man1/{one.name}.1"] = manual.page(one, names, __version__, date)
        made[f"bash-completion/completions/{one.name}"] = bash
        made[f"fish/vendor_completions.d/{one.name}.fish"] = manual.script("fish", manuals, words, [one.name])
    return made


if __name__ == "__main__":
    for name, text in files().items():
        path = pathlib.Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
