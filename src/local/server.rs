//! The outside of the gateway: it carries out what the rules decide.

mod head;
mod http;
mod socket;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::event::Handshake;
use super::function::{Function, FunctionError};
use super::gateway::{Api, CallId, Delivery, Effect, FunctionId, Machine, Refusal};
use crate::event::{ConnectionId, Invocation, Stage};
use crate::push::LARGEST_PAYLOAD;

/// How many frames wait for a client that reads slowly, before the next push is answered with 429.
const SEND_BUFFER: usize = 256;

/// The running gateway. Clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    phase: Arc<watch::Sender<Phase>>,
    /// Ends when the last function and the last socket have.
    ended: Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>,
}

/// How far the gateway is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// Nobody can connect any more; what is under way goes on.
    Closing,
    Stopped,
}

struct Shared {
    state: Mutex<State>,
    functions: Vec<Function>,
    /// Something is due earlier than the clock knows.
    earlier: Notify,
}

struct State {
    machine: Machine,
    sockets: HashMap<ConnectionId, Socket>,
    verdicts: HashMap<ConnectionId, oneshot::Sender<Verdict>>,
    /// Every function and every socket that is under way holds a clone, so that a shutdown can wait for the last.
    alive: Option<Alive>,
}

type Alive = mpsc::Sender<()>;

/// The gateway's end of a connection's socket. Dropping it lets the socket send what waits, then the close frame.
struct Socket {
    frames: mpsc::Sender<String>,
    close: oneshot::Sender<Goodbye>,
}

/// A close code and its reason.
#[derive(Debug, Clone, Copy)]
struct Goodbye {
    code: u16,
    reason: &'static str,
}

/// The socket's own end of the same.
struct Outbox {
    frames: mpsc::Receiver<String>,
    close: oneshot::Receiver<Goodbye>,
    _alive: Option<Alive>,
}

/// How an upgrade ends.
enum Verdict {
    Accepted { subprotocol: Option<String> },
    Refused(Refusal),
}

/// What a call of `@connections` wants.
pub(super) enum Managed {
    Post(Bytes),
    Get,
    Delete,
}

/// The HTTP answer to a call of `@connections`.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) error_type: Option<&'static str>,
    pub(super) body: String,
}

impl Server {
    pub(super) fn start(
        listener: std::net::TcpListener,
        api: Api,
        functions: Vec<Function>,
        seed: u64,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (alive, ended) = mpsc::channel(1);
        let state = State {
            machine: Machine::new(api, seed),
            sockets: HashMap::new(),
            verdicts: HashMap::new(),
            alive: Some(alive),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), functions, earlier: Notify::new() });
        let (phase, watched) = watch::channel(Phase::Open);
        let ended = Arc::new(tokio::sync::Mutex::new(ended));
        let server = Self { shared: Arc::clone(&shared), address, phase: Arc::new(phase), ended };
        tokio::spawn(until(Phase::Stopped, watched.clone(), Arc::clone(&shared).keep_time()));
        tokio::spawn(until(Phase::Closing, watched.clone(), http::accept(listener, shared, watched)));
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn manage(&self, stage: &str, id: &str, managed: Managed) -> Answer {
        self.shared.manage(stage, id, managed)
    }

    /// Ends at once.
    pub(super) fn stop(&self) {
        self.phase.send_replace(Phase::Stopped);
        self.shared.lock().sockets.clear();
    }

    /// Closes every connection, and waits until its goodbye is said and the functions that run have ended.
    pub(super) async fn shutdown(&self, patience: Duration) {
        self.phase.send_replace(Phase::Closing);
        self.shared.step(Machine::close_all);
        self.shared.lock().alive = None;
        let mut ended = self.ended.lock().await;
        let _ = timeout(patience, ended.recv()).await;
        self.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Runs a task until the gateway has come to this phase.
async fn until(phase: Phase, mut watched: watch::Receiver<Phase>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        _ = watched.wait_for(|now| *now >= phase) => {}
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the rules one input and carries out what they decide.
    fn step(self: &Arc<Self>, input: impl FnOnce(&mut Machine, SystemTime) -> Vec<Effect>) {
        let mut state = self.lock();
        let due = state.machine.next_due();
        let effects = input(&mut state.machine, SystemTime::now());
        self.carry_out(&mut state, effects);
        let next = state.machine.next_due();
        if next.is_some_and(|next| due.is_none_or(|due| next < due)) {
            self.earlier.notify_one();
        }
    }

    /// Nothing here waits, so that the order of effects is the order on each socket.
    fn carry_out(self: &Arc<Self>, state: &mut State, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Invoke { call, function, payload, timeout } => {
                    self.invoke(state.alive.clone(), call, function, payload, timeout);
                }
                Effect::Accept { connection, subprotocol } => {
                    let verdict = Verdict::Accepted { subprotocol };
                    let told = state.verdicts.remove(&connection).map(|client| client.send(verdict));
                    if !matches!(told, Some(Ok(()))) {
                        // The client did not wait.
                        state.sockets.remove(&connection);
                        effects.extend(state.machine.closed(SystemTime::now(), &connection, 1006, ""));
                    }
                }
                Effect::Refuse { connection, refusal } => {
                    state.sockets.remove(&connection);
                    if let Some(client) = state.verdicts.remove(&connection) {
                        let _ = client.send(Verdict::Refused(refusal));
                    }
                }
                Effect::Send { connection, text } => {
                    if let Some(Err(TrySendError::Full(_))) =
                        state.sockets.get(&connection).map(|socket| socket.frames.try_send(text))
                    {
                        tracing::warn!(connection_id = %connection, "the client reads too slowly: a frame is dropped");
                    }
                }
                Effect::Close { connection, code, reason } => {
                    if let Some(socket) = state.sockets.remove(&connection) {
                        let _ = socket.close.send(Goodbye { code, reason });
                    }
                }
            }
        }
    }

    fn invoke(
        self: &Arc<Self>,
        alive: Option<Alive>,
        call: CallId,
        function: FunctionId,
        payload: Vec<u8>,
        limit: Duration,
    ) {
        let now = SystemTime::now();
        let Some(function) = self.functions.get(function).cloned() else { return };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let request_id = format!("{:032x}", rand::random::<u128>());
            let invocation = Invocation::new(request_id, now.checked_add(limit).unwrap_or(now));
            let answer = AssertUnwindSafe(async { function.invoke(invocation, payload).await }).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| Err(FunctionError::new("Panic", "the function panicked")));
            if let Err(error) = &answer {
                tracing::warn!(%error, "the function failed");
            }
            shared.step(|machine, now| machine.answered(now, call, answer));
            drop(alive);
        });
    }

    /// Lets time pass in the rules.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let next = self.lock().machine.next_due();
            let wait = next.map(|next| next.duration_since(SystemTime::now()).unwrap_or_default());
            tokio::select! {
                () = sleep(wait.unwrap_or(Duration::from_secs(3600))) => {}
                () = self.earlier.notified() => continue,
            }
            self.step(Machine::tick);
        }
    }

    /// A client asks for a connection: the verdict, and the end of its socket.
    fn upgrade(
        self: &Arc<Self>,
        stage: Stage,
        handshake: Handshake,
    ) -> (ConnectionId, oneshot::Receiver<Verdict>, Outbox) {
        let (frames, waiting) = mpsc::channel(SEND_BUFFER);
        let (close, closing) = oneshot::channel();
        let (client, verdict) = oneshot::channel();
        let mut state = self.lock();
        let (connection, effects) = state.machine.upgrade(SystemTime::now(), stage, handshake);
        state.sockets.insert(connection.clone(), Socket { frames, close });
        state.verdicts.insert(connection.clone(), client);
        self.carry_out(&mut state, effects);
        let outbox = Outbox { frames: waiting, close: closing, _alive: state.alive.clone() };
        drop(state);
        self.earlier.notify_one();
        (connection, verdict, outbox)
    }

    /// MGT-1 to MGT-9.
    fn manage(self: &Arc<Self>, stage: &str, id: &str, managed: Managed) -> Answer {
        let answer = |status, body| Answer { status, error_type: None, body };
        let refuse = |Refusal { status, error_type, body }: Refusal| Answer { status, error_type, body };
        let mut state = self.lock();
        let now = SystemTime::now();
        match managed {
            Managed::Post(payload) if payload.len() > LARGEST_PAYLOAD => Answer {
                status: 413,
                error_type: Some("PayloadTooLargeException"),
                body: r#"{"message":"Payload too large"}"#.to_owned(),
            },
            Managed::Post(payload) => {
                let id = match state.machine.post(now, stage, id) {
                    Delivery::To(id) => id,
                    Delivery::Refused(refusal) => return refuse(refusal),
                };
                // MGT-10
                let text = String::from_utf8_lossy(&payload).into_owned();
                match state.sockets.get(&id).map(|socket| socket.frames.try_send(text)) {
                    Some(Ok(())) => answer(200, String::new()),
                    // MGT-7
                    Some(Err(TrySendError::Full(_))) => Answer {
                        status: 429,
                        error_type: Some("LimitExceededException"),
                        body: r#"{"message":"Limit exceeded"}"#.to_owned(),
                    },
                    Some(Err(TrySendError::Closed(_))) | None => {
                        Answer { status: 410, error_type: Some("GoneException"), body: String::new() }
                    }
                }
            }
            Managed::Get => state.machine.info(stage, id).map_or_else(refuse, |info| answer(200, info)),
            Managed::Delete => match state.machine.delete(now, stage, id) {
                Ok(effects) => {
                    self.carry_out(&mut state, effects);
                    answer(204, String::new())
                }
                Err(refusal) => refuse(refusal),
            },
        }
    }
}
