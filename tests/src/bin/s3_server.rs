//! An S3 server on a folder: `s3_server ADDRESS FOLDER KEY SECRET`. Signatures are checked; a bucket is a folder in the folder.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow, bail};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, folder, key, secret] = &arguments[..] else { bail!("s3_server ADDRESS FOLDER KEY SECRET") };
    let files = FileSystem::new(folder).map_err(|error| anyhow!("cannot serve {folder}: {error:?}"))?;
    let service = {
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(key.as_str(), secret.as_str()));
        builder.build()
    };
    let address: SocketAddr = address.parse().context("ADDRESS is IP:PORT")?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    loop {
        let (connection, _) = listener.accept().await?;
        let service = service.clone();
        // A client that goes away in mid-request ends its own connection only.
        tokio::spawn(
            async move { drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await) },
        );
    }
}
