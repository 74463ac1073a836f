"""Every row of the archive's readings, by DuckDB, as a line of JSON; of an identity the latest seal. Arguments: the bucket's folder, and a
file with the keys that `archive files` printed, one a line."""

import json
import sys

import duckdb

bucket, keys = sys.argv[1], sys.argv[2]
with open(keys) as lines:
    files = [f"{bucket}/{key.strip()}" for key in lines]
archive = duckdb.read_parquet(files)
# The latest of an identity would hide that a row was read from two files.
once = 'SELECT count(*), count(DISTINCT (generation, partition, "offset")) FROM archive'
[(rows, different)] = duckdb.sql(once).fetchall()
if rows != different:
    sys.exit(f"{rows - different} of {rows} rows are in two files")
rows = duckdb.sql(
    """
    SELECT meter, code, kind, period_s, nth, mantissa, scaler, unit_number,
           strftime(captured_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%g') AS captured_at,
           gateway || '/' || incarnation || '/' || seq AS batch, "index"
    FROM archive
    QUALIFY row_number() OVER (PARTITION BY meter, code, kind, period_s, captured_at, nth ORDER BY sealed_effective DESC) = 1
    """
)
names = rows.columns
for row in rows.fetchall():
    row = dict(zip(names, row))
    print(json.dumps(row | {"captured_at": row["captured_at"] + "Z"}))
