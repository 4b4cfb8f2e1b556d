-- The second alternative: PostgreSQL with pgcrypto. The keys come with each call, so that the database keeps none; it has
-- neither authorization by tenant nor an audit log.
CREATE EXTENSION pgcrypto;

CREATE TABLE cards (
  token uuid PRIMARY KEY,
  fingerprint bytea NOT NULL UNIQUE,
  iv bytea NOT NULL,
  sealed bytea NOT NULL
);

CREATE FUNCTION tokenize(pan text, mac_key bytea, aes_key bytea) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  seen bytea := hmac(pan::bytea, mac_key, 'sha256');
  fresh bytea := gen_random_bytes(16);
  answer uuid;
BEGIN
  SELECT token INTO answer FROM cards WHERE fingerprint = seen;
  IF NOT FOUND THEN
    INSERT INTO cards VALUES (gen_random_uuid(), seen, fresh, encrypt_iv(pan::bytea, aes_key, fresh, 'aes'))
      ON CONFLICT (fingerprint) DO NOTHING RETURNING token INTO answer;
    IF NOT FOUND THEN
      SELECT token INTO answer FROM cards WHERE fingerprint = seen;
    END IF;
  END IF;
  RETURN answer;
END $$;

-- Tokens that pgbench can name: of card N, the MD5 of N.
INSERT INTO cards
  SELECT md5(n::text)::uuid, hmac(pan, :'mac', 'sha256'), iv, encrypt_iv(pan, :'aes', iv, 'aes')
  FROM (
    SELECT n, ('4' || lpad(n::text, 15, '0'))::bytea AS pan, gen_random_bytes(16) AS iv
    FROM generate_series(1, :records) AS n
  ) AS made;
VACUUM ANALYZE cards;
CHECKPOINT;
