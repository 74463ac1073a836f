//! The gateway's HTTP calls to the cloud: uploading payloads and asking the time.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use protocols::metering::UtcMillis;
use protocols::uplink::topics::{SHA256_HEADER, payload_path};
use protocols::uplink::{BatchId, Sha256};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::config::Token;

/// Why an upload did not succeed. All but `Refused` may succeed later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    #[error("cannot reach the cloud at {host}:{port}: {cause}")]
    Unreachable { host: String, port: u16, cause: String },
    #[error("no answer from the cloud within {0:?}")]
    TimedOut(Duration),
    /// The token is wrong, or not this gateway's.
    #[error("the cloud refuses this gateway's credentials (status {0})")]
    Unauthorized(u16),
    #[error("the cloud answered with status {status}: {body}")]
    Status { status: u16, body: String },
    #[error("the cloud's answer is not as agreed: {what}")]
    Unexpected { what: &'static str },
}

/// What the forwarder needs of the cloud besides MQTT. A simulation has its own.
#[async_trait]
pub trait Uploader: Send + Sync + 'static {
    /// Returns when the payload is durable in the landing area. Repeating it is harmless.
    async fn upload(&self, batch: &BatchId, sha256: Sha256, payload: Bytes) -> Result<(), UploadError>;
    async fn cloud_time(&self) -> Result<UtcMillis, UploadError>;
}

/// HTTP/1.1 on kept connections; one request each at a time.
pub struct HttpUploader {
    host: String,
    port: u16,
    token: Option<Token>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// A payload of 8 MiB over 1 Mbit/s takes 67 s.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);
const ANSWER_BYTES_MAX: usize = 16 * 1024;

impl HttpUploader {
    pub fn new(host: String, port: u16, token: Option<Token>) -> Self {
        Self { host, port, token, idle: Mutex::default() }
    }

    async fn request(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), UploadError> {
        match tokio::time::timeout(UPLOAD_TIMEOUT, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(UploadError::TimedOut(UPLOAD_TIMEOUT)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), UploadError> {
        let unreachable = |cause: String| UploadError::Unreachable { host: self.host.clone(), port: self.port, cause };
        let idle = self.idle.lock().await.pop().filter(|sender| !sender.is_closed());
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await.map_err(|error| unreachable(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        self.idle.lock().await.push(sender);
        Ok((status, body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, UploadError> {
        let unreachable = |cause: String| UploadError::Unreachable { host: self.host.clone(), port: self.port, cause };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        drop(stream.set_nodelay(true));
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        // Ends when the sender is dropped or the peer closes; an error shows up at the sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// The body of an answer that says yes.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, UploadError> {
        let request = self
            .build(Method::GET, path, &Bytes::new())
            .body(Full::new(Bytes::new()))
            .expect("path and headers are plain ASCII");
        let (status, body) = self.request(request).await?;
        accepted(status, &body)?;
        Ok(body)
    }

    fn build(&self, method: Method, path: &str, body: &Bytes) -> hyper::http::request::Builder {
        let builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_LENGTH, body.len());
        match &self.token {
            Some(token) => builder.header(AUTHORIZATION, token.bearer()),
            None => builder,
        }
    }
}

#[derive(serde::Deserialize)]
struct Time {
    time_ms: i64,
}

fn accepted(status: StatusCode, body: &Bytes) -> Result<(), UploadError> {
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(UploadError::Unauthorized(status.as_u16())),
        _ => {
            let body = String::from_utf8_lossy(body).chars().take(200).collect();
            Err(UploadError::Status { status: status.as_u16(), body })
        }
    }
}

#[async_trait]
impl Uploader for HttpUploader {
    async fn upload(&self, batch: &BatchId, sha256: Sha256, payload: Bytes) -> Result<(), UploadError> {
        let request = self
            .build(Method::PUT, &payload_path(batch), &payload)
            .header(SHA256_HEADER, sha256.to_string())
            .body(Full::new(payload))
            .expect("path and headers are plain ASCII");
        let (status, body) = self.request(request).await?;
        accepted(status, &body)
    }

    async fn cloud_time(&self) -> Result<UtcMillis, UploadError> {
        let body = self.get("/v1/time").await?;
        let time: Result<Time, _> = serde_json::from_slice(&body);
        time.map(|time| UtcMillis(time.time_ms)).map_err(|_| UploadError::Unexpected { what: "no time in it" })
    }
}
