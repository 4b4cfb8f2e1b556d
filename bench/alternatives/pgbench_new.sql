\set n random(1000000000, 900000000000000)
SELECT tokenize('4' || lpad((:n::bigint)::text, 15, '0'), :mac::bytea, :aes::bytea);
