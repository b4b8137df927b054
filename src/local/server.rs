//! The I/O of the gateway, which carries out what the rules decide.

mod answer;
mod deflate;
mod effects;
mod functions;
mod head;
mod hosts;
mod http;
mod invocation;
mod keep_alive;
mod outbox;
mod signature;
mod socket;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

pub(super) use self::answer::{Answer, Request};
use self::effects::carry_out;
pub(super) use self::hosts::Hosts;
use self::invocation::Call;
use self::outbox::{Outbox, Sender, outbox};
pub(super) use self::signature::Keys;
use super::function::Function;
use super::payload::Handshake;
use super::rules::{Api, Fault, Input, Machine, Managed, Output, Refusal, Reply, When, gone};
use super::timeline::Timeline;
use crate::clock;
use crate::event::{ConnectionId, Stage};
use crate::push::Endpoint;

/// How long a shutdown waits for processes to end.
const PROCESSES: Duration = Duration::from_secs(2);

/// The running gateway. Clones share it.
#[derive(Clone)]
pub(super) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Closes when the last function and the last socket have ended.
    ended: Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>,
}

/// The phase of the gateway's lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// New clients are refused; running work continues.
    Closing,
    Stopped,
}

/// The state that the tasks of the gateway share.
///
/// Nothing that outlives the gateway holds it: routes hold pushers, and a pusher holds it weakly.
pub(super) struct Shared {
    state: Mutex<State>,
    keys: Option<Keys>,
    hosts: Hosts,
    /// Whether clients may use compression.
    compresses: bool,
    is_verbose: bool,
    /// The number of HTTP connections, without WebSockets.
    http_connections: AtomicUsize,
    /// Signals that something is due earlier than the timer knows.
    earlier: Notify,
    phase: watch::Sender<Phase>,
    /// The runtime of functions, even if the caller runs elsewhere.
    runtime: Handle,
    timeline: Timeline,
    started: (SystemTime, Instant),
}

struct State {
    machine: Machine,
    /// Empty once the gateway has stopped: routes hold pushers, processes, and other values.
    functions: Vec<Function>,
    sockets: HashMap<ConnectionId, Sender>,
    verdicts: HashMap<ConnectionId, oneshot::Sender<Verdict>>,
    /// When the timer wakes up next, if it does.
    wakes_at: Option<SystemTime>,
    /// Every running function and socket holds a clone, so that a shutdown can wait for the last.
    alive: Option<Alive>,
}

type Alive = mpsc::Sender<()>;

/// The gateway's resources that a socket's task holds.
struct Link {
    outbox: Outbox,
    _alive: Option<Alive>,
}

/// The outcome of an upgrade.
enum Verdict {
    Accepted { subprotocol: Option<String> },
    Refused(Refusal),
}

/// The configuration of a gateway.
pub(super) struct Config {
    pub(super) api: Api,
    pub(super) functions: Vec<Function>,
    pub(super) keys: Option<Keys>,
    pub(super) hosts: Hosts,
    pub(super) compresses: bool,
    pub(super) is_verbose: bool,
    pub(super) seed: u64,
    pub(super) timeline: Timeline,
}

/// A pusher's handle to the gateway, which does not keep it alive.
#[derive(Debug)]
pub(super) struct Linked {
    shared: Weak<Shared>,
    pub(super) endpoint: Endpoint,
}

impl Linked {
    /// Calls `@connections` for a connection of any stage.
    ///
    /// Returns `None` if a fault suppresses the response.
    pub(super) fn manage(&self, id: &ConnectionId, request: Request) -> Option<Answer> {
        match self.shared.upgrade() {
            Some(shared) => shared.manage(None, id.as_str(), request),
            // The connections ended with the gateway.
            None => Some(Answer::of(Err(gone()))),
        }
    }
}

impl Server {
    pub(super) fn start(listeners: Vec<std::net::TcpListener>, config: Config) -> io::Result<Self> {
        let Config { api, functions, keys, hosts, compresses, is_verbose, seed, timeline } = config;
        let listeners: io::Result<Vec<TcpListener>> = listeners.into_iter().map(TcpListener::from_std).collect();
        let listeners = listeners?;
        let first = listeners.first().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let address = first.local_addr()?;
        let (alive, ended) = mpsc::channel(1);
        let state = State {
            machine: Machine::new(api, seed),
            functions,
            sockets: HashMap::new(),
            verdicts: HashMap::new(),
            wakes_at: None,
            alive: Some(alive),
        };
        let (phase, watched) = watch::channel(Phase::Open);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            keys,
            hosts,
            compresses,
            is_verbose,
            http_connections: AtomicUsize::new(0),
            earlier: Notify::new(),
            phase,
            runtime: Handle::current(),
            timeline,
            started: (clock::now(), Instant::now()),
        });
        tokio::spawn(until(Phase::Stopped, watched.clone(), Arc::clone(&shared).keep_time()));
        for listener in listeners {
            let accepting = http::accept(listener, Arc::clone(&shared), watched.clone());
            tokio::spawn(until(Phase::Closing, watched.clone(), accepting));
        }
        Ok(Self { shared, address, ended: Arc::new(tokio::sync::Mutex::new(ended)) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn link(&self, endpoint: Endpoint) -> Linked {
        Linked { shared: Arc::downgrade(&self.shared), endpoint }
    }

    pub(super) fn timeline(&self) -> &Timeline {
        &self.shared.timeline
    }

    pub(super) fn open_connections(&self) -> Vec<ConnectionId> {
        self.shared.lock().machine.open_connections()
    }

    pub(super) fn inject(&self, fault: Fault, when: When) {
        self.shared.step_aside(Input::Inject { fault, when });
    }

    pub(super) fn clear_faults(&self) {
        self.shared.step_aside(Input::ClearFaults);
    }

    /// Stops at once.
    pub(super) fn stop(&self) {
        self.shared.phase.send_replace(Phase::Stopped);
        let mut state = self.shared.lock();
        state.sockets.clear();
        state.verdicts.clear();
        state.alive = None;
        let functions = std::mem::take(&mut state.functions);
        drop(state);
        // Dropped without the lock: values that functions hold may push on drop.
        drop(functions);
    }

    /// Closes every connection, and waits for close frames and running functions.
    pub(super) async fn shutdown(&self, limit: Duration) {
        self.shared.phase.send_if_modified(|phase| {
            let is_open = *phase == Phase::Open;
            if is_open {
                *phase = Phase::Closing;
            }
            is_open
        });
        self.shared.step_aside(Input::Drain);
        self.shared.lock().alive = None;
        let mut ended = self.ended.lock().await;
        let _ = timeout(limit, ended.recv()).await;
        let ending: Vec<_> = self.shared.lock().functions.iter().filter_map(Function::ending).collect();
        self.stop();
        let processes = async {
            for ending in ending {
                ending.wait().await;
            }
        };
        let _ = timeout(PROCESSES, processes).await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Runs a task until the gateway reaches this phase.
async fn until(phase: Phase, mut watched: watch::Receiver<Phase>, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = watched.wait_for(|now| *now >= phase) => {}
        () = task => {}
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time of day at the start plus the monotonic time since.
    fn now(&self) -> SystemTime {
        let (day, start) = self.started;
        day.checked_add(start.elapsed()).unwrap_or(day)
    }

    /// Passes an input to the rules, and carries out their effects except for function calls.
    fn apply(&self, input: Input<'_>) -> (Reply, Vec<Call>) {
        let mut state = self.lock();
        let now = self.now();
        let output = state.machine.apply(now, input);
        self.carry_out(state, now, output)
    }

    fn carry_out(&self, mut state: MutexGuard<'_, State>, now: SystemTime, output: Output) -> (Reply, Vec<Call>) {
        let Output { mut reply, effects, notes } = output;
        let problems: Vec<_> = notes.iter().filter(|(_, what)| what.is_problem()).cloned().collect();
        self.timeline.add(now, notes);
        let mut calls = Vec::new();
        carry_out(&mut state, now, effects, &mut reply, &mut calls, &self.timeline);
        let due = state.machine.next_due();
        let is_earlier = due.is_some_and(|due| state.wakes_at.is_none_or(|wakes_at| due < wakes_at));
        drop(state);
        if is_earlier {
            self.earlier.notify_one();
        }
        // In verbose mode, they have already been written.
        for (connection_id, what) in problems.into_iter().filter(|_| !self.is_verbose) {
            let connection_id = connection_id.as_ref().map(ConnectionId::as_str);
            tracing::warn!(connection_id, "{what}");
        }
        self.timeline.deliver();
        (reply, calls)
    }

    /// Applies an input from one of the gateway's own tasks.
    ///
    /// Functions start at once, on that task.
    fn step(self: &Arc<Self>, input: Input<'_>) -> Reply {
        let (reply, calls) = self.apply(input);
        self.begin(calls);
        reply
    }

    /// Applies an input from outside of the gateway's tasks.
    ///
    /// Functions start on a task of their own: the caller may hold a resource that they need, or be
    /// a function itself.
    fn step_aside(self: &Arc<Self>, input: Input<'_>) -> Reply {
        let (reply, calls) = self.apply(input);
        for call in calls {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move { shared.begin(vec![call]) });
        }
        reply
    }

    /// Lets time pass in the rules.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let wait = {
                let mut state = self.lock();
                state.wakes_at = state.machine.next_due();
                state.wakes_at.map(|wakes_at| wakes_at.duration_since(self.now()).unwrap_or_default())
            };
            let Some(wait) = wait else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.earlier.notified() => {}
                () = sleep(wait) => drop(self.step_aside(Input::Tick)),
            }
        }
    }

    /// Requests a connection for a client.
    ///
    /// Returns its id, the verdict, and the resources of its socket.
    fn upgrade(
        self: &Arc<Self>,
        stage: Stage,
        handshake: Handshake,
    ) -> Option<(ConnectionId, oneshot::Receiver<Verdict>, Link)> {
        let (sender, outbox) = outbox();
        let (client, verdict) = oneshot::channel();
        let mut state = self.lock();
        let now = self.now();
        let output = state.machine.apply(now, Input::Upgrade { stage, handshake });
        let Reply::Connection(connection) = &output.reply else { return None };
        let connection = connection.clone();
        // Inserted before the effects, one of which may be the verdict.
        state.sockets.insert(connection.clone(), sender);
        state.verdicts.insert(connection.clone(), client);
        let link = Link { outbox, _alive: state.alive.clone() };
        let (_, calls) = self.carry_out(state, now, output);
        self.begin(calls);
        Some((connection, verdict, link))
    }

    /// Handles MGT-1 to MGT-9, for a payload whose size has been checked.
    ///
    /// Returns `None` if a fault suppresses the response.
    fn manage(self: &Arc<Self>, stage: Option<&str>, id: &str, request: Request) -> Option<Answer> {
        let call = match request {
            // MGT-10
            Request::Post(payload) => Managed::Post(String::from_utf8_lossy(&payload).into_owned()),
            Request::Get => Managed::Get,
            Request::Delete => Managed::Delete,
        };
        match self.step_aside(Input::Manage { stage, id, call }) {
            Reply::Answer(answer) => Some(Answer::of(answer)),
            _ => None,
        }
    }
}
