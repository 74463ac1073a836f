"""Every row of the table `readings`, by the stock driver, as a line of JSON. Arguments: PORT, KEYSPACE."""

import json
import sys

from cassandra.cluster import Cluster

cluster = Cluster(["127.0.0.1"], port=int(sys.argv[1]))
session = cluster.connect(sys.argv[2])
for row in session.execute("SELECT * FROM readings"):
    sign, digits, exponent = row.value.as_tuple()
    mantissa = int("".join(map(str, digits))) * (-1 if sign else 1)
    print(
        json.dumps(
            {
                "meter": row.meter,
                "code": row.code,
                "kind": row.kind,
                "period_s": row.period_s,
                "captured_at": row.captured_at.isoformat(timespec="milliseconds") + "Z",
                "nth": row.nth,
                "mantissa": mantissa,
                "scaler": exponent,
                "unit_number": row.unit,
            }
        )
    )
cluster.shutdown()
