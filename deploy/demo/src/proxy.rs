//! A TCP proxy on loopback that can be torn (connections are cut and new ones refused) or stalled (they stay open, and nothing
//! passes).

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Up,
    Down,
    /// As behind a hung process or a silent network: connections open, and nothing is read or answered.
    Stalled,
}

#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    flow: Arc<watch::Sender<Flow>>,
}

impl Proxy {
    /// Listens on a free port and passes each connection on to the first of `targets` that takes it.
    pub async fn start(targets: &[SocketAddr]) -> std::io::Result<Self> {
        let targets: Arc<[SocketAddr]> = targets.into();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (flow, watch) = watch::channel(Flow::Up);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watch.borrow() != Flow::Down {
                    tokio::spawn(pass(client, Arc::clone(&targets), watch.clone()));
                }
            }
        });
        Ok(Self { address, flow: Arc::new(flow) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn pass(mut client: TcpStream, targets: Arc<[SocketAddr]>, mut flow: watch::Receiver<Flow>) {
    if *flow.borrow() == Flow::Up {
        let Ok(mut server) = TcpStream::connect(&*targets).await else { return };
        let stalled = tokio::select! {
            // Either end closing ends it, as does an error: that is what a wire does.
            _ = copy_bidirectional(&mut client, &mut server) => false,
            flow = flow.wait_for(|flow| *flow != Flow::Up) => flow.is_ok_and(|flow| *flow == Flow::Stalled),
        };
        if stalled {
            // Both ends keep their connection. Bytes may be on the way between them: it never passes any again.
            drop(flow.wait_for(|flow| *flow != Flow::Stalled).await);
        }
    } else {
        drop(flow.wait_for(|flow| *flow != Flow::Stalled).await);
    }
}
