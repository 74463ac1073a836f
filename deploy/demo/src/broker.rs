//! The embedded MQTT broker, in a process of its own. It keeps nothing on disk: killed, it forgets every session.

use std::collections::HashMap;
use std::net::SocketAddr;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Serves until the process ends.
pub fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: 512 * 1024,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings { name: "v4".to_owned(), listen, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: 1_000,
        max_outgoing_packet_count: 200,
        // A slow subscriber loses what falls out of the last segment: 10 of 100 MiB are more than any test publishes.
        max_segment_size: 100 * 1024 * 1024,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let config = Config { router, v4: Some(HashMap::from([("v4".to_owned(), server)])), ..Config::default() };
    Broker::new(config).start()?;
    Ok(())
}
