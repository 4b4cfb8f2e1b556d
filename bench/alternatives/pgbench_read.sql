\set n random(1, :records)
SELECT convert_from(decrypt_iv(sealed, :aes::bytea, iv, 'aes'), 'UTF8') FROM cards WHERE token = md5((:n::bigint)::text)::uuid;
