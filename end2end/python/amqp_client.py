"""A plain AMQP client: publishes to warren.in, reads warren.out.

Usage: amqp_client.py AMQP_URL
Exits 0 if what it published came out again as events.
"""

import json
import sys
import time
import uuid

import pika

PATIENCE = 30


def main():
    connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
    run = uuid.uuid4().hex[:8]

    # Read the tickets' stream from now on: streams want a prefetch and acks.
    seen, offsets_seen = [], set()
    reader = connection.channel()
    reader.basic_qos(prefetch_count=100)

    def take(channel, method, properties, body):
        # A stream may hold an event twice; its offset tells.
        if properties.headers["x-offset"] not in offsets_seen:
            offsets_seen.add(properties.headers["x-offset"])
            seen.append((properties, json.loads(body)))
        channel.basic_ack(method.delivery_tag)

    reader.basic_consume(
        "warren.out.tickets", take, arguments={"x-stream-offset": "next"}
    )

    # Publish with confirms; mandatory, so that a missing queue is noticed.
    writer = connection.channel()
    writer.confirm_delivery()
    ids = []
    for body in (
        {"type": "ticket.opened", "ticket": f"t-{run}", "subject": "By AMQP", "body": "Hello",
         "requester": {"name": "Ines"}},
        {"type": "ticket.commented", "ticket": f"t-{run}", "body": "And again"},
    ):
        ids.append(str(uuid.uuid4()))
        properties = pika.BasicProperties(
            message_id=ids[-1], type=body["type"], app_id="python",
            content_type="application/json", delivery_mode=2, timestamp=int(time.time()),
        )
        # The second one twice: it has one effect.
        for _ in range(len(ids)):
            writer.basic_publish(
                "warren.in", "tickets.0", json.dumps(body).encode(), properties, mandatory=True
            )

    deadline = time.monotonic() + PATIENCE
    while len(seen) < 2 and time.monotonic() < deadline:
        connection.process_data_events(time_limit=0.2)
    # One that makes no sense becomes a dead letter with its reason.
    writer.basic_publish(
        "warren.in", "tickets.0", b"not json",
        pika.BasicProperties(message_id=f"bad-{run}", type="ticket.opened", delivery_mode=2),
        mandatory=True,
    )
    dead = None
    while dead is None and time.monotonic() < deadline:
        connection.process_data_events(time_limit=0.2)
        method, properties, body = writer.basic_get("warren.dead.tickets", auto_ack=False)
        if method is not None:
            dead = (properties, body)
            writer.basic_ack(method.delivery_tag)

    assert [event["cause"] for _, event in seen] == ids, seen
    assert [event["version"] for _, event in seen] == [1, 2], seen
    opened, event = seen[0]
    assert event["type"] == "ticket.opened" and event["subject"] == "By AMQP", event
    assert event["integration"] == "python", event
    assert opened.content_type == "application/json" and opened.delivery_mode == 2, opened
    assert opened.type == "ticket.opened" and opened.message_id == event["id"], opened
    offsets = [int(properties.headers["x-offset"]) for properties, _ in seen]
    assert offsets[1] == offsets[0] + 1, offsets
    assert opened.headers["x-channel"] == "tickets", opened.headers
    assert opened.headers["x-key"] == event["interaction_id"], opened.headers
    assert dead is not None and dead[1] == b"not json", dead
    connection.close()
    print("ok")


main()
