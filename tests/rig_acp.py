"""A small editor of the Agent Client Protocol, for real agents: it opens a session, asks, and allows what is asked for."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
from collections.abc import Sequence

from rig_clients import program, started
from rig_matrix import Session

from conftest import MOST, Json

PATIENCE = 15.0  # seconds, before an agent is ended by force; what it used is written by then


class Editor:
    """One agent at work behind tok-read acp."""

    def __init__(self, session: Session, words: Sequence[str], model: str) -> None:
        client, place = session.client, session.place
        path = pathlib.Path(program(client.command))
        file = str(path.with_name(client.acp.get("command", path.name)))
        command = [file, *(session.filled(word, "", model) for word in words)]
        session.write_files("", model)
        settings = {name: session.filled(value, "", model) for name, value in client.settings.items()}
        where = (place.environment, place.vendor, place.where)
        self.process = started(["tok-read", "acp", "--", *command], *where, streams=True, **settings)
        self.place = place
        self.number = 0
        self.messages: list[Json] = []

    def send(self, **message: object) -> None:
        """Write a message."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def call(self, method: str, **params: object) -> Json:
        """What a request is answered with. Whatever the agent asks meanwhile is allowed."""
        self.number += 1
        self.send(id=self.number, method=method, params=params)
        assert self.process.stdout is not None
        for line in iter(self.process.stdout.readline, b""):
            message: Json = json.loads(line)
            self.messages.append(message)
            if "method" in message and "id" in message:
                self.allow(message)
            elif message.get("id") == self.number:
                return message
        raise AssertionError(f"the agent ended; it said {self.process.stderr.read()[-2000:].decode()}")  # type: ignore[union-attr]

    def allow(self, message: Json) -> None:
        """Answer a request of the agent."""
        if message["method"] == "session/request_permission":
            options = message["params"]["options"]
            allowed = next((option for option in options if str(option.get("kind")).startswith("allow")), options[0])
            self.send(id=message["id"], result={"outcome": {"outcome": "selected", "optionId": allowed["optionId"]}})
        else:
            self.send(id=message["id"], error={"code": -32601, "message": "not here"})

    def open(self, model: str) -> str:
        """Begin a session with a model; its name."""
        capabilities = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        self.call("initialize", protocolVersion=1, clientCapabilities=capabilities)
        answer = self.call("session/new", cwd=str(self.place.where), mcpServers=[])
        session = str(answer["result"]["sessionId"])
        self.choose(session, answer["result"], model)
        return session

    def choose(self, session: str, result: Json, model: str) -> None:
        """Let a session use a model, in the way that its agent offers."""
        for option in result.get("configOptions") or ():
            if option.get("category") == "model":
                values = [str(each["value"]) for each in option["options"]]
                value = next((each for each in values if each in (model, f"rig/{model}")), "")
                if value and value != option["currentValue"]:
                    self.call("session/set_config_option", sessionId=session, configId=option["id"], value=value)
                return
        models = result.get("models") or {}
        names = [str(each["modelId"]) for each in models.get("availableModels") or ()]
        name = next((each for each in names if each.endswith(model)), "")
        if name and name != models.get("currentModelId"):
            self.call("session/set_model", sessionId=session, modelId=name)

    def close(self) -> None:
        """End the agent as editors do: its input ends, then by a signal. Gemini CLI 0.61.0 heeds neither after a prompt."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        for end in (self.process.terminate, self.process.kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
                return
            end()
        self.process.wait(MOST)
