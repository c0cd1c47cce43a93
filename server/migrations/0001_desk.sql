-- One set of migrations for SQLite and PostgreSQL: TEXT and BIGINT only.
-- Ids are UUIDs as text, times are milliseconds since 1970, hashes are hex.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- The last offset of each channel. Locked by whoever gives out offsets.
CREATE TABLE heads (
    channel TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO heads (channel, last) VALUES ('voice', 0), ('chat', 0), ('tickets', 0);

CREATE TABLE decided (
    id TEXT NOT NULL PRIMARY KEY,
    outcome TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX decided_at ON decided (at);

CREATE TABLE contacts (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    email TEXT,
    email_key TEXT,
    phone TEXT,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX contacts_email ON contacts (email_key);
CREATE UNIQUE INDEX contacts_phone ON contacts (phone);

-- `body` is the state; the other columns are what is asked for.
CREATE TABLE interactions (
    id TEXT NOT NULL PRIMARY KEY,
    channel TEXT NOT NULL,
    part BIGINT NOT NULL,
    version BIGINT NOT NULL,
    prior BIGINT NOT NULL,
    is_over BIGINT NOT NULL,
    is_public BIGINT NOT NULL,
    assignee TEXT,
    offered_to TEXT,
    queue TEXT,
    contact_id TEXT,
    due_at BIGINT,
    updated_at BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX interactions_due ON interactions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX interactions_updated ON interactions (updated_at, id);
CREATE INDEX interactions_open ON interactions (is_over, updated_at, id);
CREATE INDEX interactions_contact ON interactions (contact_id, updated_at) WHERE contact_id IS NOT NULL;
CREATE INDEX interactions_assignee ON interactions (assignee, is_over, updated_at) WHERE assignee IS NOT NULL;

-- Who may see an interaction that isn't public.
CREATE TABLE interaction_viewers (
    interaction_id TEXT NOT NULL,
    login TEXT NOT NULL,
    PRIMARY KEY (interaction_id, login)
);

CREATE TABLE journal (
    channel TEXT NOT NULL,
    pos BIGINT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    cause TEXT NOT NULL,
    part BIGINT NOT NULL,
    interaction_id TEXT,
    version BIGINT,
    distribution TEXT NOT NULL,
    body TEXT NOT NULL,
    at BIGINT NOT NULL,
    by_agent BIGINT NOT NULL,
    announced_at BIGINT,
    PRIMARY KEY (channel, pos)
);
CREATE INDEX journal_cause ON journal (cause);
CREATE INDEX journal_interaction ON journal (interaction_id, version) WHERE interaction_id IS NOT NULL;
CREATE INDEX journal_outbox ON journal (channel, part, pos) WHERE announced_at IS NULL;

CREATE TABLE agents (
    id TEXT NOT NULL PRIMARY KEY,
    login TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    disabled BIGINT NOT NULL,
    presence TEXT NOT NULL,
    reason TEXT,
    since BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    hash TEXT NOT NULL PRIMARY KEY,
    login TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_login ON sessions (login);
CREATE INDEX sessions_expires ON sessions (expires_at);

CREATE TABLE integrations (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    signature_required BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

-- `agent` is empty where the step is nobody's in particular.
CREATE TABLE receipts (
    cause TEXT NOT NULL,
    stage TEXT NOT NULL,
    agent TEXT NOT NULL,
    at BIGINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (cause, stage, agent)
);
CREATE INDEX receipts_at ON receipts (at);

CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX audit_at ON audit (at);
