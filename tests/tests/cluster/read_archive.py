"""Every row of the archive's readings, by DuckDB, as a line of JSON; of an identity the latest seal. Argument: the bucket's folder."""

import json
import sys

import duckdb

files = f"{sys.argv[1]}/archive/raw/readings/*/*.parquet"
rows = duckdb.sql(
    f"""
    SELECT meter, code, kind, period_s, nth, mantissa, scaler, unit_number,
           strftime(captured_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%g') AS captured_at,
           gateway || '/' || incarnation || '/' || seq AS batch, "index"
    FROM read_parquet('{files}')
    QUALIFY row_number() OVER (PARTITION BY meter, code, kind, period_s, captured_at, nth ORDER BY sealed_effective DESC) = 1
    """
)
names = rows.columns
for row in rows.fetchall():
    row = dict(zip(names, row))
    print(json.dumps(row | {"captured_at": row["captured_at"] + "Z"}))
