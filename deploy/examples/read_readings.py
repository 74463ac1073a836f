"""Every committed reading, once, as a line of JSON: a stock Kafka client, Avro, the schema registry.

    pip install 'confluent-kafka[avro]'
    python read_readings.py BROKERS REGISTRY_URL [TOPIC]

The topic holds one flat record a reading. `isolation.level` is what makes it exactly once: records of transactions that
were aborted are not seen (it is this client's default, and not that of the Java client, of Spark or of Flink). The headers
`batch` and `index` name the delivery, for whoever does not want to believe that.
"""

import json
import sys
from decimal import Decimal

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry = sys.argv[1:3]
topic = sys.argv[3] if len(sys.argv) > 3 else "meterpost.readings"

consumer = Consumer(
    {
        "bootstrap.servers": brokers,
        "group.id": "example",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
)
decode = AvroDeserializer(SchemaRegistryClient({"url": registry}))
context = SerializationContext(topic, MessageField.VALUE)

partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
unfinished = set(partitions)
while unfinished:
    message = consumer.poll(30)
    if message is None:
        sys.exit("nothing came for 30 s")
    if message.error():
        # The end of a partition: all that is committed by now was read.
        unfinished.discard(message.partition())
        continue
    reading = decode(message.value(), context)
    for name in ("captured_at", "read_at", "occurred_at", "sealed_at", "sealed_effective"):
        if reading[name] is not None:
            reading[name] = reading[name].isoformat(timespec="milliseconds")
    # The value itself, of which the column `value` is only the nearest double.
    exact = format(Decimal(reading["mantissa"]).scaleb(reading["scaler"]), "f")
    headers = {name: value.decode() for name, value in message.headers()}
    print(json.dumps(reading | {"exact": exact} | headers))
consumer.close()
