//! Which gateway a request comes from: its path names it, and with tokens configured its token proves it.

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use protocols::uplink::{GatewayId, Sha256};

use super::HttpServices;

/// Far above any token; a longer file is no token.
const TOKEN_BYTES_MAX: usize = 4_096;

/// An unknown gateway and a wrong token are answered alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no valid token for this gateway")]
pub(super) struct NoToken;

pub(super) async fn authorize(
    services: &HttpServices,
    request: &HttpRequest,
    gateway: &GatewayId,
) -> Result<(), NoToken> {
    let Some(tokens) = &services.tokens_dir else { return Ok(()) };
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or(NoToken)?;
    // A gateway's id is no path: letters, digits, - _ and dots, none of them first.
    let file = tokio::fs::read(tokens.join(gateway.as_str())).await.map_err(|_| NoToken)?;
    let expected = file.trim_ascii();
    if expected.is_empty() || expected.len() > TOKEN_BYTES_MAX || !same_secret(given.trim().as_bytes(), expected) {
        return Err(NoToken);
    }
    Ok(())
}

/// In time that depends on neither: hashes are compared, all of them, whatever differs.
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (Sha256::of(a), Sha256::of(b));
    let difference = a.0.iter().zip(b.0).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}
