import com.fasterxml.jackson.databind.ObjectMapper;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import java.io.BufferedOutputStream;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Every committed reading, once, as a line of JSON: Kafka's own client, Avro, the schema registry.
 *
 * <pre>
 *     mvn -q dependency:copy-dependencies -DoutputDirectory=lib
 *     java -cp 'lib/*' ReadReadings.java BROKERS REGISTRY_URL [TOPIC]
 * </pre>
 *
 * The topic holds one flat record a reading. `isolation.level` is what makes it exactly once: records of transactions that were
 * aborted are not seen. This client's default is to see them. The headers `batch` and `index` name the delivery, for whoever does
 * not want to believe that.
 */
public class ReadReadings {
    private static final Duration PATIENCE = Duration.ofSeconds(30);
    private static final DateTimeFormatter INSTANT =
            DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSSxxx").withZone(ZoneOffset.UTC);
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        // Kafka's client has much to say that nobody asked about.
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        if (arguments.length < 2) {
            throw new IllegalArgumentException("BROKERS REGISTRY_URL [TOPIC]");
        }
        String topic = arguments.length > 2 ? arguments[2] : "meterpost.readings";
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", arguments[0],
                "isolation.level", "read_committed",
                "auto.offset.reset", "none",
                "enable.auto.commit", false,
                "key.deserializer", StringDeserializer.class,
                // Of Confluent's registry: io.confluent.kafka.serializers.KafkaAvroDeserializer and schema.registry.url.
                "value.deserializer", AvroKafkaDeserializer.class,
                "apicurio.registry.url", arguments[1]);
        try (KafkaConsumer<String, GenericRecord> consumer = new KafkaConsumer<>(settings);
                PrintStream out = new PrintStream(new BufferedOutputStream(System.out), false, StandardCharsets.UTF_8)) {
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(partition -> new TopicPartition(topic, partition.partition()))
                    .toList();
            if (partitions.isEmpty()) {
                throw new IllegalArgumentException("there is no topic " + topic);
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            // To a read-committed consumer this is the end of all that is committed by now.
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            Instant last = Instant.now();
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                for (ConsumerRecord<String, GenericRecord> record : consumer.poll(Duration.ofSeconds(1))) {
                    out.println(JSON.writeValueAsString(reading(record)));
                    last = Instant.now();
                }
                if (last.isBefore(Instant.now().minus(PATIENCE))) {
                    throw new IllegalStateException("nothing came for " + PATIENCE.toSeconds() + " s");
                }
            }
        }
    }

    /** Columns and headers by name. */
    private static Map<String, Object> reading(ConsumerRecord<String, GenericRecord> record) {
        Map<String, Object> reading = new LinkedHashMap<>();
        GenericRecord columns = record.value();
        for (Schema.Field field : columns.getSchema().getFields()) {
            Object value = columns.get(field.pos());
            if (value instanceof CharSequence) {
                value = value.toString();
            } else if (value instanceof Long && isInstant(field.schema())) {
                value = INSTANT.format(Instant.ofEpochMilli((Long) value));
            }
            reading.put(field.name(), value);
        }
        // The value itself, of which the column `value` is only the nearest double.
        BigDecimal exact = BigDecimal.valueOf((Long) columns.get("mantissa"), -(Integer) columns.get("scaler"));
        reading.put("exact", exact.toPlainString());
        for (Header header : record.headers()) {
            reading.put(header.key(), new String(header.value(), StandardCharsets.UTF_8));
        }
        return reading;
    }

    /** A time stamp, or one that may be missing. */
    private static boolean isInstant(Schema schema) {
        List<Schema> kinds = schema.isUnion() ? schema.getTypes() : List.of(schema);
        return kinds.stream().anyMatch(kind -> kind.getLogicalType() != null);
    }
}
