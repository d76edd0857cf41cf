"""A made agent of the Agent Client Protocol. Its first argument says what it does beside answering.

plain     answers until its input ends, then ends with status 0
status    ends with status 7 when its input ends
dies      kills itself in the second prompt
waits     ignores nothing and ends only by a signal; writes which to its stderr
floods    answers with an update of so many bytes as the prompt's text says
deaf      closes its input at the first prompt, answers it, and goes on until nobody reads
leaves    leaves a program behind that holds its output, and ends
echo      sends every byte back as it comes
"""

import json
import os
import signal
import subprocess
import sys
import time

USAGE = {"totalTokens": 111, "inputTokens": 50, "outputTokens": 11, "cachedReadTokens": 40, "cachedWriteTokens": 10}


def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def update(**values):
    send(method="session/update", params={"sessionId": "made-1", "update": values})


def on_signal(number, frame):
    sys.stderr.write(f"signal {number}\n")
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def prompt(way, message, number):
    text = message["params"]["prompt"][0]["text"]
    if way == "dies" and number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "floods":
        update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "x" * int(text)})
    if way == "deaf":
        os.close(0)
    update(sessionUpdate="usage_update", used=100, size=1000, cost={"amount": 0.5, "currency": "USD"})
    send(id=message["id"], result={"stopReason": "end_turn", "usage": USAGE})
    while way == "deaf":
        update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "x" * 1000})
        time.sleep(0.01)


def main(way):
    if way == "echo":
        while data := os.read(0, 1 << 16):
            os.write(1, data)
        return 0
    if way == "waits":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, on_signal)
    sys.stderr.write("made agent at work\n")
    sys.stderr.flush()
    number = 0
    for line in sys.stdin:
        message = json.loads(line)
        if message["method"] == "initialize":
            send(id=message["id"], result={"protocolVersion": 1, "agentInfo": {"name": "made-agent", "version": "1"}})
        elif message["method"] == "session/new":
            send(
                id=message["id"], result={"sessionId": "made-1", "models": {"currentModelId": "m-1", "availableModels": []}}
            )
        elif message["method"] == "session/prompt":
            number += 1
            prompt(way, message, number)
    if way == "leaves":
        subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "the last"})
    while way == "waits":
        signal.pause()
    return 7 if way == "status" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
