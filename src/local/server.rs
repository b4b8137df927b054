//! The outside of the gateway: it carries out what the rules decide.

mod head;
mod http;
mod outbox;
mod signature;
mod socket;

use std::any::Any;
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
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use self::outbox::{Goodbye, Outbox, Refused, Sender, outbox};
pub(super) use self::signature::Keys;
use super::event::Handshake;
use super::function::{Function, FunctionError};
use super::gateway::{Api, CallId, Delivery, Effect, Fault, FunctionId, Machine, Refusal, When, gone, limit_exceeded};
use crate::event::{ConnectionId, Invocation, Stage};
use crate::push::LARGEST_PAYLOAD;

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
    keys: Option<Keys>,
    /// Something is due earlier than the clock knows.
    earlier: Notify,
}

struct State {
    machine: Machine,
    sockets: HashMap<ConnectionId, Sender>,
    verdicts: HashMap<ConnectionId, oneshot::Sender<Verdict>>,
    /// When time next passes in the rules, unless it is told to earlier.
    wakes_at: SystemTime,
    /// Every function and every socket that is under way holds a clone, so that a shutdown can wait for the last.
    alive: Option<Alive>,
}

type Alive = mpsc::Sender<()>;

/// What a socket's task holds of the gateway.
struct Link {
    outbox: Outbox,
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
        keys: Option<Keys>,
        seed: u64,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (alive, ended) = mpsc::channel(1);
        let state = State {
            machine: Machine::new(api, seed),
            sockets: HashMap::new(),
            verdicts: HashMap::new(),
            wakes_at: SystemTime::UNIX_EPOCH,
            alive: Some(alive),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), functions, keys, earlier: Notify::new() });
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

    pub(super) fn inject(&self, fault: Fault, when: When) {
        self.shared.step(|machine, _| machine.inject(fault, when));
    }

    pub(super) fn clear_faults(&self) {
        self.shared.step(|machine, _| machine.clear_faults());
    }

    pub(super) fn manage(&self, stage: &str, id: &str, managed: Managed) -> Option<Answer> {
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
        self.with_state(|state| ((), input(&mut state.machine, SystemTime::now())));
    }

    /// Changes the state and carries out the effects; functions are called when the state is free again, since they may
    /// push through this very gateway.
    fn with_state<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> (T, Vec<Effect>)) -> T {
        let mut calls = Vec::new();
        let mut state = self.lock();
        let (value, effects) = change(&mut state);
        carry_out(&mut state, effects, &mut calls);
        let is_earlier = state.machine.next_due().is_some_and(|due| due < state.wakes_at);
        drop(state);
        if is_earlier {
            self.earlier.notify_one();
        }
        for call in calls {
            self.invoke(call);
        }
        value
    }

    /// Calls a function. One that answers without waiting does so here, before anything else happens; any other goes on in
    /// a task of its own.
    fn invoke(self: &Arc<Self>, Call { call, function, payload, limit, killed_after, alive }: Call) {
        let now = SystemTime::now();
        let Some(function) = self.functions.get(function).cloned() else { return };
        let request_id = format!("{:032x}", rand::random::<u128>());
        let invocation = Invocation::new(request_id, now.checked_add(limit).unwrap_or(now));
        let running = async move {
            let running = function.invoke(invocation, payload);
            match killed_after {
                None => running.await,
                Some(after) => {
                    // Dropped, an invocation is at its end, and so is the process that runs it.
                    let _ = timeout(after, running).await;
                    Err(FunctionError::new("Runtime.ExitError", "the function was killed"))
                }
            }
        };
        let mut running = Box::pin(AssertUnwindSafe(running).catch_unwind());
        match (&mut running).now_or_never() {
            Some(answer) => self.answered(call, answer),
            None => {
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    let answer = running.await;
                    shared.answered(call, answer);
                    drop(alive);
                });
            }
        }
    }

    fn answered(self: &Arc<Self>, call: CallId, answer: Result<Result<Vec<u8>, FunctionError>, Box<dyn Any + Send>>) {
        let answer = answer.unwrap_or_else(|_| Err(FunctionError::new("Panic", "the function panicked")));
        if let Err(error) = &answer {
            tracing::warn!(%error, "the function failed");
        }
        self.step(|machine, now| machine.answered(now, call, answer));
    }

    /// Lets time pass in the rules.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let now = SystemTime::now();
            let wait = {
                let mut state = self.lock();
                let longest = now.checked_add(Duration::from_secs(60)).unwrap_or(now);
                state.wakes_at = state.machine.next_due().unwrap_or(longest).min(longest);
                state.wakes_at.duration_since(now).unwrap_or_default()
            };
            tokio::select! {
                () = sleep(wait) => self.step(Machine::tick),
                () = self.earlier.notified() => {}
            }
        }
    }

    /// A client asks for a connection: the verdict, and the end of its socket.
    fn upgrade(
        self: &Arc<Self>,
        stage: Stage,
        handshake: Handshake,
    ) -> (ConnectionId, oneshot::Receiver<Verdict>, Link) {
        let (sender, outbox) = outbox();
        let (client, verdict) = oneshot::channel();
        self.with_state(|state| {
            let (connection, effects) = state.machine.upgrade(SystemTime::now(), stage, handshake);
            state.sockets.insert(connection.clone(), sender);
            state.verdicts.insert(connection.clone(), client);
            let link = Link { outbox, _alive: state.alive.clone() };
            ((connection, verdict, link), effects)
        })
    }

    /// MGT-1 to MGT-9. `None` when a fault keeps the answer.
    fn manage(self: &Arc<Self>, stage: &str, id: &str, managed: Managed) -> Option<Answer> {
        self.with_state(|state| {
            let now = SystemTime::now();
            match managed {
                Managed::Post(payload) => (state.post(now, stage, id, &payload), Vec::new()),
                Managed::Get => {
                    (Some(Answer::of(state.machine.info(now, stage, id).map(|info| (200, info)))), Vec::new())
                }
                Managed::Delete => match state.machine.delete(now, stage, id) {
                    Ok(effects) => (Some(Answer::of(Ok((204, String::new())))), effects),
                    Err(refusal) => (Some(Answer::of(Err(refusal))), Vec::new()),
                },
            }
        })
    }
}

impl State {
    fn post(&mut self, now: SystemTime, stage: &str, id: &str, payload: &[u8]) -> Option<Answer> {
        if payload.len() > LARGEST_PAYLOAD {
            return Some(Answer::of(Err(too_large())));
        }
        // MGT-10
        let text = String::from_utf8_lossy(payload).into_owned();
        let outcome = match self.machine.post(now, stage, id, text) {
            Delivery::To(id, text) => match self.sockets.get(&id).map(|socket| socket.send(text)) {
                Some(Ok(())) => Ok((200, String::new())),
                // MGT-7
                Some(Err(Refused::Full)) => Err(limit_exceeded()),
                Some(Err(Refused::Closed)) | None => Err(gone()),
            },
            Delivery::Swallowed => Ok((200, String::new())),
            Delivery::Refused(refusal) => Err(refusal),
            Delivery::Unanswered(delivered) => {
                if let Some((id, text)) = delivered
                    && let Some(socket) = self.sockets.get(&id)
                {
                    let _ = socket.send(text);
                }
                return None;
            }
        };
        Some(Answer::of(outcome))
    }
}

/// MGT-6
fn too_large() -> Refusal {
    let body = r#"{"message":"Payload too large"}"#.to_owned();
    Refusal { status: 413, error_type: Some("PayloadTooLargeException"), body }
}

impl Answer {
    fn of(answer: Result<(u16, String), Refusal>) -> Self {
        match answer {
            Ok((status, body)) => Self { status, error_type: None, body },
            Err(Refusal { status, error_type, body }) => Self { status, error_type, body },
        }
    }
}

/// A function that has to be called.
struct Call {
    call: CallId,
    function: FunctionId,
    payload: Vec<u8>,
    limit: Duration,
    killed_after: Option<Duration>,
    alive: Option<Alive>,
}

/// Nothing here waits, so that the order of effects is the order on each socket.
fn carry_out(state: &mut State, effects: Vec<Effect>, calls: &mut Vec<Call>) {
    let mut effects = VecDeque::from(effects);
    while let Some(effect) = effects.pop_front() {
        match effect {
            Effect::Invoke { call, function, payload, timeout, killed_after } => {
                let alive = state.alive.clone();
                calls.push(Call { call, function, payload, limit: timeout, killed_after, alive });
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
                if let Some(Err(Refused::Full)) = state.sockets.get(&connection).map(|socket| socket.send(text)) {
                    tracing::warn!(connection_id = %connection, "the client reads too slowly: a frame is dropped");
                }
            }
            Effect::Close { connection, code, reason } => {
                if let Some(socket) = state.sockets.remove(&connection) {
                    socket.close(Goodbye { code, reason });
                }
            }
            Effect::Hold { connection, held } => {
                if let Some(socket) = state.sockets.get(&connection) {
                    socket.hold(held);
                }
            }
        }
    }
}
