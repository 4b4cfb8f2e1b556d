\set n random(1, :records)
SELECT tokenize('4' || lpad((:n::bigint)::text, 15, '0'), :mac::bytea, :aes::bytea);
