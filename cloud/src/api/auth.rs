//! Who may look: one viewer token, sent as a bearer token or exchanged for a session cookie by the sign-in page.
//!
//! A session is a cookie that says until when it lasts, with an HMAC keyed by the token: every instance can check it, a
//! restart ends none, a new token ends all. The token itself is in no cookie.

use std::future::{Ready, ready};
use std::path::{Path, PathBuf};

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HOST};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use protocols::metering::UtcMillis;
use protocols::uplink::Sha256;

use super::{ApiError, ApiState};

pub const SESSION_COOKIE: &str = "meterpost_session";
pub const SESSION_S: i64 = 14 * 86_400;
/// Less can be guessed by whoever may ask often enough.
const TOKEN_LEN_MIN: usize = 16;
const TOKEN_LEN_MAX: usize = 4_096;
/// Block length of SHA-256, for HMAC (RFC 2104).
const BLOCK_BYTES: usize = 64;

/// Kept as its hash; has no `Debug` that would show it.
#[derive(Clone)]
pub struct ViewerToken {
    hash: Sha256,
}

/// Why a text or a file holds no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewerTokenError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("a viewer token has {TOKEN_LEN_MIN} to {TOKEN_LEN_MAX} printable ASCII characters, this has {len}")]
    Text { len: usize },
}

impl std::fmt::Debug for ViewerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ViewerToken(..)")
    }
}

impl ViewerToken {
    pub fn new(text: &str) -> Result<Self, ViewerTokenError> {
        let token = text.trim();
        let valid =
            (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
        if !valid {
            return Err(ViewerTokenError::Text { len: token.len() });
        }
        Ok(Self { hash: Sha256::of(token.as_bytes()) })
    }

    pub fn read(path: &Path) -> Result<Self, ViewerTokenError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ViewerTokenError::Read { path: path.to_owned(), source })?;
        Self::new(&text)
    }

    pub fn is(&self, given: &str) -> bool {
        same(&Sha256::of(given.trim().as_bytes()), &self.hash)
    }

    /// The value of a cookie that lets in for [`SESSION_S`].
    pub fn session(&self, now: UtcMillis) -> String {
        let until_s = now.seconds().saturating_add(SESSION_S);
        format!("{until_s}.{}", self.sign(until_s))
    }

    pub fn is_session(&self, cookie: &str, now: UtcMillis) -> bool {
        let Some((until, signature)) = cookie.split_once('.') else { return false };
        let (Ok(until_s), Ok(signature)) = (until.parse::<i64>(), signature.parse::<Sha256>()) else { return false };
        same(&signature, &self.sign(until_s)) && now.seconds() < until_s
    }

    /// HMAC-SHA-256 (RFC 2104) of what the session says.
    fn sign(&self, until_s: i64) -> Sha256 {
        let keyed = |pad: u8, message: &[u8]| {
            let mut bytes = vec![pad; BLOCK_BYTES];
            for (byte, key) in bytes.iter_mut().zip(self.hash.0) {
                *byte ^= key;
            }
            bytes.extend_from_slice(message);
            Sha256::of(&bytes)
        };
        keyed(0x5c, &keyed(0x36, format!("viewer session until {until_s}").as_bytes()).0)
    }
}

/// In time that does not depend on where they differ.
fn same(a: &Sha256, b: &Sha256) -> bool {
    let difference = a.0.iter().zip(b.0).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Proof that the request may see readings: every route of the API takes it as an argument.
pub struct Viewer;

impl FromRequest for Viewer {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(check(request).map(|()| Self))
    }
}

pub fn check(request: &HttpRequest) -> Result<(), ApiError> {
    let state = request.app_data::<Data<ApiState>>().ok_or(ApiError::Unavailable)?;
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(token) = &state.viewer else {
        return match header(HOST) {
            Some(host) if !is_this_machine(host) => Err(ApiError::Host { host: host.chars().take(100).collect() }),
            _ => Ok(()),
        };
    };
    if header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|given| token.is(given)) {
        return Ok(());
    }
    let now = state.clock.now();
    let is_session = sessions(request).any(|session| token.is_session(session, now));
    if is_session { Ok(()) } else { Err(ApiError::Token) }
}

/// The values of our cookie: a browser sends one, but may be made to send more.
fn sessions(request: &HttpRequest) -> impl Iterator<Item = &str> {
    let headers = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let cookies = headers.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.filter(|(name, _)| *name == SESSION_COOKIE).map(|(_, value)| value)
}

/// A page of another site that had its name point here would send that name.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UtcMillis = UtcMillis(1_795_401_600_000);

    fn token(text: &str) -> ViewerToken {
        ViewerToken::new(text).ok().unwrap()
    }

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = token("0123456789abcdef\n");
        assert!(token.is("0123456789abcdef") && !token.is("0123456789abcdeF") && !token.is(""));
        for text in ["", "short", "with a blank in it", "0123456789abcdeä"] {
            assert!(ViewerToken::new(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_session_ends_in_time_and_with_its_token() {
        let first = token("the-first-token-of-all");
        let session = first.session(NOW);
        assert!(first.is_session(&session, NOW) && first.is_session(&session, NOW.plus_ms((SESSION_S - 1) * 1000)));
        assert!(!first.is_session(&session, NOW.plus_ms(SESSION_S * 1000)));
        assert!(!token("another-token-of-all").is_session(&session, NOW));
        let (until, signature) = session.split_once('.').unwrap();
        let longer = format!("{}.{signature}", until.parse::<i64>().unwrap() + 1);
        for forged in [longer.as_str(), "", ".", until, &format!("{until}.{}", "0".repeat(64))] {
            assert!(!first.is_session(forged, NOW), "{forged:?} was taken");
        }
    }

    #[test]
    fn names_of_this_machine_are_known() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "10.0.0.1:8080", "[2001:db8::1]", ""] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
