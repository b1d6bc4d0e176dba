-- Whether an app's writes must carry the server's nonce in their proofs (RFC 9449 §9). New apps must; those that exist
-- go on as they were.
ALTER TABLE registry_app ADD COLUMN dpop_nonce_required boolean NOT NULL DEFAULT false;
ALTER TABLE registry_app ALTER COLUMN dpop_nonce_required SET DEFAULT true;
GRANT UPDATE (dpop_nonce_required) ON registry_app TO tessera_app;
