//! A TCP line between a client and a server that can go dead silently, as when a load balancer is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A running line, which ends with its runtime.
pub struct Line {
    pub address: SocketAddr,
    /// How many connections clients have opened.
    pub connections: Arc<AtomicUsize>,
    /// Connections with a number below this one are dead or closed.
    dead: watch::Sender<usize>,
    closed: watch::Sender<usize>,
}

impl Line {
    /// Starts a line to the server at this address.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            dead: watch::Sender::new(0),
            closed: watch::Sender::new(0),
        };
        let (connections, dead, closed) =
            (Arc::clone(&line.connections), line.dead.subscribe(), line.closed.subscribe());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(upstream).await.unwrap();
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, number, dead.clone(), closed.clone()));
                tokio::spawn(pass(from_server, to_client, number, dead.clone(), closed.clone()));
            }
        });
        line
    }

    /// Makes all current connections dead, without notifying either end.
    pub fn go_dead(&self) {
        self.dead.send_replace(self.connections.load(Ordering::SeqCst));
    }

    /// Makes the next n connections dead from the start.
    pub fn go_dead_for(&self, next: usize) {
        self.dead.send_replace(self.connections.load(Ordering::SeqCst) + next);
    }

    /// Closes all current connections.
    pub fn close(&self) {
        self.closed.send_replace(self.connections.load(Ordering::SeqCst));
    }

    pub fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: usize,
    dead: watch::Receiver<usize>,
    mut closed: watch::Receiver<usize>,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read.unwrap_or(0),
            _ = closed.wait_for(|closed| number < *closed) => 0,
        };
        if number < *dead.borrow() {
            // The sockets stay open: neither end is notified.
            std::future::pending::<()>().await;
        }
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
