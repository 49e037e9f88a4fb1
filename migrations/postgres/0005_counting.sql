-- What is learned from counting what providers have counted too.
-- migrations/sqlite has the same tables under the same names.

-- How many tokens a model makes of one token of the encoding that we count it with, as its answers
-- have taught. A row for each model, encoding and side, so the table does not grow with traffic.
CREATE TABLE token_factors (
    provider   TEXT   NOT NULL,
    model      TEXT   NOT NULL,
    encoding   TEXT   NOT NULL,
    side       TEXT   NOT NULL CHECK (side IN ('prompt', 'completion')),
    -- Millionths.
    millionths BIGINT NOT NULL CHECK (millionths > 0),
    -- How many answers this rests on; no more are remembered than make new ones count.
    samples    BIGINT NOT NULL CHECK (samples > 0),
    -- All answers that were ever compared.
    compared   BIGINT NOT NULL CHECK (compared >= samples),
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (provider, model, encoding, side)
);
