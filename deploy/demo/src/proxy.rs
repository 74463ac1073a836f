//! A TCP proxy on loopback that can be torn: while it is down, connections are cut and new ones refused.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `target`.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (up, watch) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watch.borrow() {
                    tokio::spawn(pass(client, target, watch.clone()));
                }
            }
        });
        Ok(Self { address, up: Arc::new(up) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, mut up: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        // Either end closing ends it, as does an error: that is what a wire does.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = up.wait_for(|up| !up) => {}
    }
}
