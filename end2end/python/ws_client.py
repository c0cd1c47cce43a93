"""A client of docs/PROTOCOL.md that shares no code with Warren.

Usage: ws_client.py WEBSOCKET_URL TOKEN EXTERNAL_URL KEY
Exits 0 if everything it was promised came true.
"""

import json
import sys
import time
import urllib.error
import urllib.request
import uuid

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

WS, TOKEN, EXTERNAL, KEY = sys.argv[1:5]
PATIENCE = 20


def post(channel, body, **headers):
    request = urllib.request.Request(
        f"{EXTERNAL}/external/{channel}",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 202, answer.status
        return json.load(answer)


class Client:
    """One socket; answers pings, keeps the place of each channel."""

    def __init__(self, resume=None, channels=None):
        self.socket = connect(WS, subprotocols=["warren.v1"], open_timeout=PATIENCE)
        assert self.socket.subprotocol == "warren.v1", self.socket.subprotocol
        hello = {"type": "hello", "token": TOKEN, "client": "python"}
        if resume:
            hello["resume"] = resume
        if channels:
            hello["channels"] = channels
        self.send(hello)
        self.places = {}
        self.events = []
        self.frames = []
        self.welcome = self.until(lambda frame: frame["type"] == "welcome")
        for channel, stream in self.welcome["streams"].items():
            self.places[channel] = {"epoch": stream["epoch"], "offset": stream["offset"]}
        if resume:
            for channel, place in resume.items():
                self.places[channel] = dict(place)

    def send(self, frame):
        self.socket.send(json.dumps(frame))

    def read(self, deadline):
        frame = json.loads(self.socket.recv(timeout=max(0.01, deadline - time.monotonic())))
        if frame["type"] == "ping":
            counted = {}
            for channel, _ in self.events:
                counted[channel] = counted.get(channel, 0) + 1
            for channel, sent in frame["sent"].items():
                assert counted.get(channel, 0) == sent, (channel, counted, sent)
            positions = {channel: place["offset"] for channel, place in self.places.items()}
            self.send({"type": "pong", "positions": positions})
        if frame["type"] == "event":
            channel = frame["channel"]
            assert frame["offset"] > self.places[channel]["offset"], "offsets must rise"
            self.places[channel]["offset"] = frame["offset"]
            self.events.append((channel, frame))
            self.send({"type": "ack", "channel": channel, "offset": frame["offset"]})
        return frame

    def until(self, wanted):
        for frame in self.frames:
            if wanted(frame):
                self.frames.remove(frame)
                return frame
        deadline = time.monotonic() + PATIENCE
        while True:
            frame = self.read(deadline)
            if wanted(frame):
                return frame
            self.frames.append(frame)

    def event(self, cause):
        return self.until(lambda f: f["type"] == "event" and f["event"]["cause"] == cause)

    def command(self, command, command_id=None):
        command_id = command_id or str(uuid.uuid4())
        self.send({"type": "command", "id": command_id, "command": command, "deadline_ms": 15000})
        return self.until(lambda f: f["type"] == "reply" and f["id"] == command_id)


def closed_with(frame):
    with connect(WS, open_timeout=PATIENCE) as socket:
        socket.send(frame)
        try:
            while True:
                socket.recv(timeout=PATIENCE)
        except ConnectionClosed as closed:
            return closed.rcvd.code


def main():
    client = Client()
    assert client.welcome["principal"]["login"], client.welcome
    assert set(client.welcome["streams"]) == {"voice", "chat", "tickets"}, client.welcome
    run = uuid.uuid4().hex[:8]

    # Down: an event of each channel arrives with its cause.
    call = post("voice", {"type": "call.ringing", "call": f"c-{run}"})
    seen = client.event(call["id"])
    assert seen["channel"] == "voice" and seen["event"]["type"] == "call.ringing", seen
    assert seen["event"]["version"] == 1, seen
    chat = post("chat", {"type": "chat.started", "chat": f"s-{run}", "contact": {"name": "Ines"}})
    chat_seen = client.event(chat["id"])
    assert chat_seen["event"]["contact"]["name"] == "Ines", chat_seen
    ticket = post("tickets", {
        "type": "ticket.opened", "ticket": f"t-{run}", "subject": "Broken", "body": "It is",
        "requester": {"email": f"{run}@example.com"},
    })
    assert client.event(ticket["id"])["event"]["subject"] == "Broken"

    # Up: a command has its reply and its event.
    interaction = seen["event"]["interaction_id"]
    command_id = str(uuid.uuid4())
    answer = {"type": "answer_call", "interaction_id": interaction}
    reply = client.command(answer, command_id)
    assert "ok" in reply, reply
    answered = client.event(command_id)
    assert answered["event"]["type"] == "call.answered", answered
    assert answered["event"]["version"] == 2, answered
    # The same id again: the first reply, and no second effect.
    again = client.command(answer, command_id)
    assert again["ok"] == reply["ok"], (again, reply)
    # A stale version is a conflict; a wrong field is named.
    stale = client.command({"type": "add_note", "interaction_id": interaction, "text": "x",
                            "expect_version": 1})
    assert stale["error"]["code"] == "conflict", stale
    wrong = client.command({"type": "set_status", "interaction_id": interaction, "status": "odd"})
    assert wrong["error"]["pointer"] == "/command/status", wrong
    unknown = client.command({"type": "take", "interaction_id": str(uuid.uuid4())})
    assert unknown["error"]["code"] == "not_found", unknown

    # The same key again has one effect.
    twice = {"type": "chat.message", "chat": f"s-{run}", "text": "once"}
    first = post("chat", twice, **{"idempotency-key": f"k-{run}"})
    second = post("chat", twice, **{"idempotency-key": f"k-{run}"})
    assert first == second, (first, second)
    client.event(first["id"])

    # Gone and back: exactly what was missed, in order, once.
    client.until(lambda f: f["type"] == "ping")
    resume = {channel: dict(place) for channel, place in client.places.items()}
    client.socket.close()
    missed = [
        post("chat", {"type": "chat.message", "chat": f"s-{run}", "text": f"missed {n}"})["id"]
        for n in range(25)
    ]
    back = Client(resume=resume)
    assert back.welcome["streams"]["chat"]["recovered"], back.welcome
    back.event(missed[-1])
    causes = [f["event"]["cause"] for channel, f in back.events if channel == "chat"]
    assert causes == missed, (causes, missed)
    # A place in another journal can't be resumed.
    other = {"chat": {"epoch": str(uuid.uuid4()), "offset": 3}}
    lost = Client(resume=other, channels=["chat"])
    assert lost.welcome["streams"]["chat"]["recovered"] is False, lost.welcome
    assert lost.welcome["streams"]["chat"]["replayed"] == 0, lost.welcome
    assert set(lost.welcome["streams"]) == {"chat"}, lost.welcome

    # Bad frames get their codes, and cost the others nothing.
    assert closed_with("not json") == 4500
    assert closed_with(json.dumps({"type": "dance"})) == 4500
    assert closed_with(json.dumps({"type": "hello", "token": "wt_wrong"})) == 4501
    assert closed_with(json.dumps({"type": "hello", "token": "x" * 70000})) == 4504
    still = post("voice", {"type": "call.ended", "call": f"c-{run}", "reason": "completed"})
    back.event(still["id"])
    print("ok")


main()
