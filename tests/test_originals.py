"""What the original TokenOps took: parameters of its API are taken, or answered with a sentence that says what there is instead."""

from __future__ import annotations

import pathlib

import pytest

from conftest import Json, put
from tokenops import config, dash, dash_api, datadir, pricing, session, store, tools, when

AT = when.moment("2026-11-21T09:30:00.000Z")


@pytest.fixture
def gatherer(environment: dict[str, str]) -> dash.Gatherer:
    folder = environment["TOKENOPS_HOME"]
    store.append(folder, [])
    given = config.load(environment, environment["HOME"])
    source = session.Session(folder, environment, environment["HOME"], lambda: AT, lambda: given, pricing.load, lambda: "")
    return dash.gatherer(source, list)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("spend/series", {"bucket": "Day", "group": "workflow_id"}),
        ("spend/series", {"bucket": "hour", "group": "provider"}),
        ("spend/series", {"group": ""}),
        ("spend/summary", {"agent_id": "codex:app", "since": "168h"}),
        ("workflows", {"agent_id": "codex:app"}),
    ],
)
def test_parameters_of_the_original_are_taken(path: str, query: dict[str, str], gatherer: dash.Gatherer) -> None:
    answer: Json = dash_api.answer(gatherer, path, query)
    assert answer


@pytest.mark.parametrize("name", sorted({*tools.ORIGINAL} - {"provider"}))
def test_others_are_answered_with_a_sentence(name: str, gatherer: dash.Gatherer) -> None:
    with pytest.raises(session.BadRequest) as refusal:
        dash_api.answer(gatherer, "spend/forecast", {name: "7"})
    assert str(refusal.value).startswith(f"tokenops_forecast takes no {name}: ") and "did you mean" not in str(refusal.value)


def test_a_change_that_another_program_makes_to_the_configuration_stays(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(pathlib.Path(config.path_of(environment, environment["HOME"])), b"plans:\n  openai: plus\n")
    path.chmod(0o640)
    real = datadir.content_of
    others = iter((b"# another's\nplans:\n  openai: plus\n", None))

    def content_of(name: str) -> bytes | None:
        content = real(name)
        if content is not None and (other := next(others, None)):
            path.write_bytes(other)  # after our reading
        return content

    monkeypatch.setattr(datadir, "content_of", content_of)
    config.set_key(config.load(environment, environment["HOME"]), "plans", "anthropic", "max-5x")
    text = path.read_text()
    assert text.startswith("# another's\n") and "max-5x" in text and path.stat().st_mode & 0o777 == 0o640


def test_a_read_only_configuration_stays(environment: dict[str, str]) -> None:
    path = put(pathlib.Path(config.path_of(environment, environment["HOME"])), b"plans:\n  openai: plus\n")
    path.chmod(0o400)
    with pytest.raises(config.Unchangeable, match="is read-only; it stays as it is"):
        config.set_key(config.load(environment, environment["HOME"]), "plans", "anthropic", "max-5x")
    assert path.read_bytes() == b"plans:\n  openai: plus\n"
