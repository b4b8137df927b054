//! The stub server in another process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::authority::authority;
use super::stub::{Behavior, Stub};

pub struct Server {
    /// The certificate of its authority, if it speaks TLS.
    pub root: Option<Vec<u8>>,
    child: Child,
    output: std::cell::RefCell<BufReader<ChildStdout>>,
    pub address: String,
}

impl Server {
    pub fn start(behavior: Behavior) -> Self {
        Self::speaking(behavior, "--stub")
    }

    /// Starts a stub that speaks TLS, with HTTP/2 for clients that support it.
    pub fn start_with_tls() -> Self {
        Self::speaking(Behavior { forgets: true, ..Behavior::default() }, "--tls-stub")
    }

    fn speaking(behavior: Behavior, mode: &str) -> Self {
        let Behavior { latency, gone, throttled, stalled, seed, forgets, .. } = behavior;
        let numbers = [latency.as_millis() as f64, gone, throttled, stalled, seed as f64, f64::from(u8::from(forgets))];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(mode)
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        output.read_line(&mut address).unwrap();
        let (address, root) = match address.trim().split_once(' ') {
            Some((address, root)) => (address.to_owned(), Some(hex::decode(root).unwrap())),
            None => (address, None),
        };
        Self { root, child, output: output.into(), address: address.trim().to_owned() }
    }

    /// Returns how many connections the stub delivered to, and how many were gone.
    pub fn answered(&self) -> (usize, usize) {
        writeln!(self.child.stdin.as_ref().unwrap()).unwrap();
        let mut line = String::new();
        self.output.borrow_mut().read_line(&mut line).unwrap();
        let (delivered, gone) = line.trim().split_once(' ').unwrap();
        (delivered.parse().unwrap(), gone.parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the stub until its standard input closes.
///
/// It responds to each line with the counts for [`Server::answered`].
pub async fn serve(arguments: &[String], with_tls: bool) {
    let number = |at: usize| arguments[at].parse::<f64>().unwrap();
    let behavior = Behavior {
        latency: Duration::from_secs_f64(number(0) / 1000.0),
        gone: number(1),
        throttled: number(2),
        stalled: number(3),
        seed: number(4) as u64,
        forgets: number(5) > 0.0,
        ..Behavior::default()
    };
    let stub = match with_tls {
        false => {
            let stub = Stub::start(behavior, None).await;
            println!("{}", stub.address);
            stub
        }
        true => {
            let (root, config) = authority("localhost", &["h2", "http/1.1"]);
            let stub = Stub::start(behavior, Some(Arc::new(config).into())).await;
            println!("localhost:{} {}", stub.address.port(), hex::encode(root));
            stub
        }
    };
    let log = stub.log;
    tokio::task::spawn_blocking(move || {
        for _ in std::io::stdin().lines() {
            let log = log.lock().unwrap();
            let ended = |status| log.values().filter(|answers| answers.contains(&status)).count();
            println!("{} {}", ended(200), ended(410));
        }
    })
    .await
    .unwrap();
}
