-- Who posted what: an integration reads the journeys of its own events.
-- `receipts` has it from `accepted` on, `decided` for good, and for AMQP.
ALTER TABLE decided ADD COLUMN integration TEXT;
ALTER TABLE receipts ADD COLUMN integration TEXT;
