-- The registers of a ledger, the log that they are made from, and the news of them that is still to be told.

CREATE TABLE register (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    size bigint NOT NULL CHECK (size >= 0),
    root bytea NOT NULL CHECK (length(root) = 32)
);

-- No foreign keys where a commit writes hundreds of rows: each would look its register up again. A number
-- comes from the row of its register in the same transaction, and no register can be deleted.

CREATE TABLE entry (
    index bigint NOT NULL CHECK (index >= 0),
    register integer NOT NULL,
    entry bytea NOT NULL,
    PRIMARY KEY (register, index)
);

-- What each commit adds to a tile is a row of its own: a tile is its rows, one after another.
CREATE TABLE tile (
    index bigint NOT NULL CHECK (index >= 0),
    register integer NOT NULL,
    level smallint NOT NULL,
    first smallint NOT NULL CHECK (first BETWEEN 0 AND 255),
    hashes bytea NOT NULL,
    PRIMARY KEY (register, level, index, first)
);

-- Signatures and hashes do not compress; to try costs more than it ever saves.
ALTER TABLE entry ALTER COLUMN entry SET STORAGE EXTERNAL;
ALTER TABLE tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

CREATE TABLE note (
    size bigint NOT NULL CHECK (size >= 0),
    register integer NOT NULL REFERENCES register,
    note bytea NOT NULL,
    PRIMARY KEY (register, size)
);

CREATE TABLE submission (
    first bigint NOT NULL,
    register integer NOT NULL,
    count integer NOT NULL,
    submission_id bytea NOT NULL,
    PRIMARY KEY (register, submission_id)
);

CREATE TABLE record (
    version bigint NOT NULL,
    entry bigint NOT NULL,
    register integer NOT NULL,
    record_id bytea NOT NULL,
    PRIMARY KEY (register, record_id, version)
);

-- A submission may be rejected more than once: the latest entry says why.
CREATE TABLE rejection (
    entry bigint NOT NULL,
    register integer NOT NULL,
    submission_id bytea NOT NULL,
    PRIMARY KEY (register, submission_id, entry)
);

CREATE TABLE cosignature (
    size bigint NOT NULL,
    key_id bigint NOT NULL,
    register integer NOT NULL REFERENCES register,
    name text COLLATE "C" NOT NULL,
    first bytea NOT NULL,
    last bytea NOT NULL,
    PRIMARY KEY (register, size, name, key_id)
);
CREATE INDEX cosignature_of_witness ON cosignature (register, name, key_id, size);

CREATE TABLE log_topic (
    topic text COLLATE "C" PRIMARY KEY,
    partitions integer NOT NULL CHECK (partitions > 0)
);

CREATE TABLE log_position (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    epoch bigint NOT NULL,
    next_offset bigint NOT NULL,
    last bytea,
    chain bytea NOT NULL CHECK (length(chain) = 32),
    UNIQUE (topic, partition)
);

-- What became of each message. A quarantined one stands in no register.
CREATE TABLE disposition (
    log_offset bigint NOT NULL,
    first bigint NOT NULL,
    position integer NOT NULL,
    register integer CHECK (register IS NOT NULL OR kind = 4),
    count integer NOT NULL,
    kind smallint NOT NULL,
    PRIMARY KEY (position, log_offset)
);

CREATE TABLE quarantine (
    log_offset bigint NOT NULL,
    position integer NOT NULL REFERENCES log_position,
    key bytea NOT NULL,
    value bytea NOT NULL,
    why text NOT NULL,
    PRIMARY KEY (position, log_offset)
);

-- What is still to be sent, in this order. A row without a value is a head that is not signed yet.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    key bytea NOT NULL,
    size bigint,
    value bytea
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_ready ON outbox (id) WHERE value IS NOT NULL;
CREATE INDEX outbox_of_size ON outbox (key, size);

-- What has been written stays as it is, whoever asks: also the owner, who needs no privilege.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what is in table % is never changed: % refused', TG_TABLE_NAME, TG_OP;
END
$$;

DO $$
DECLARE
    kept text;
BEGIN
    FOREACH kept IN ARRAY ARRAY[
        'entry', 'tile', 'note', 'submission', 'record', 'rejection', 'disposition', 'quarantine', 'log_topic'
    ]
    LOOP
        EXECUTE format(
            'CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', kept);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER never_changed', kept);
    END LOOP;
    FOREACH kept IN ARRAY ARRAY['register', 'log_position', 'cosignature']
    LOOP
        EXECUTE format(
            'CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', kept);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER never_deleted', kept);
    END LOOP;
END
$$;

CREATE TRIGGER only_grows BEFORE UPDATE ON register FOR EACH ROW
WHEN (
    NEW.number <> OLD.number OR NEW.name <> OLD.name OR NEW.size < OLD.size
    OR (NEW.size = OLD.size AND NEW.root <> OLD.root)
)
EXECUTE FUNCTION refuse_change();
ALTER TABLE register ENABLE ALWAYS TRIGGER only_grows;

CREATE TRIGGER only_grows BEFORE UPDATE ON log_position FOR EACH ROW
WHEN (
    NEW.number <> OLD.number OR NEW.topic <> OLD.topic OR NEW.partition <> OLD.partition
    OR NEW.epoch < OLD.epoch OR NEW.next_offset < OLD.next_offset
)
EXECUTE FUNCTION refuse_change();
ALTER TABLE log_position ENABLE ALWAYS TRIGGER only_grows;

-- Of a witness's signatures of one size the earliest and the latest are kept: their bytes begin with their time.
CREATE TRIGGER only_widens BEFORE UPDATE ON cosignature FOR EACH ROW
WHEN (
    NEW.register <> OLD.register OR NEW.size <> OLD.size OR NEW.name <> OLD.name OR NEW.key_id <> OLD.key_id
    OR NEW.first > OLD.first OR NEW.last < OLD.last
)
EXECUTE FUNCTION refuse_change();
ALTER TABLE cosignature ENABLE ALWAYS TRIGGER only_widens;
