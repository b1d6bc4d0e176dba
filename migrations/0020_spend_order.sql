-- The order in which a member's points are spent has a version, and every hold and spend names the one it was picked by.
-- A migration that brings another order adds its row and changes the default.
CREATE TABLE ledger_spend_order (
    version  smallint PRIMARY KEY,
    sentence text     NOT NULL UNIQUE
);
INSERT INTO ledger_spend_order (version, sentence) VALUES
    (1, 'Points that end soonest are spent first, of these the oldest; points that never end come last.');
GRANT SELECT ON ledger_spend_order TO tessera_app;

ALTER TABLE ledger_hold ADD COLUMN spend_order smallint NOT NULL DEFAULT 1;
