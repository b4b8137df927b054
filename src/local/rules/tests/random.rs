//! Any sequence of inputs, including every fault, and the invariants that hold for it.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::super::calls::Purpose;
use super::*;

/// The next step. Numbers choose among the items that exist.
#[derive(Debug, Clone)]
enum Step {
    Upgrade { has_token: bool },
    Message(usize, &'static str),
    Closed(usize),
    Violation(usize),
    NeverOpened(usize),
    Answer(usize, usize),
    Post(usize, bool),
    Get(usize),
    Delete(usize),
    Wait(u64),
    Inject(usize, When),
    InjectOn(usize, usize),
    ClearFaults,
    Drain,
}

const FAULTS: [Fault; 24] = [
    Fault::PostGone,
    Fault::PostThrottled,
    Fault::PostFailed,
    Fault::PostUnanswered,
    Fault::PostAnswerLost,
    Fault::PostDuplicated,
    Fault::GetGone,
    Fault::GetThrottled,
    Fault::GetFailed,
    Fault::GetUnanswered,
    Fault::DeleteGone,
    Fault::DeleteThrottled,
    Fault::DeleteFailed,
    Fault::DeleteUnanswered,
    Fault::DeleteAnswerLost,
    Fault::DisconnectLost,
    Fault::DisconnectLate(Duration::from_secs(40)),
    Fault::OpenLate(Duration::from_secs(5)),
    Fault::HalfOpen,
    Fault::SlowConsumer,
    Fault::TextLate(Duration::from_secs(9)),
    Fault::FunctionThrottled,
    Fault::ColdStart(Duration::from_secs(2)),
    Fault::MessageLate(Duration::from_secs(7)),
];

const ANSWERS: [&str; 8] = [
    r#"{"statusCode":200}"#,
    r#"{"statusCode":200,"body":"answer"}"#,
    r#"{"statusCode":403}"#,
    r#"{"statusCode":101}"#,
    r#"{"principalId":"a","policyDocument":{"Version":"2012-10-17","Statement":[{"Action":"*","Effect":"Allow","Resource":"*"}]}}"#,
    r#"{"principalId":"a","policyDocument":{"Version":"2012-10-17","Statement":[]}}"#,
    "null",
    "fails",
];

fn step() -> impl Strategy<Value = Step> {
    let which = 0..1000_usize;
    let message = prop_oneof![
        Just(r#"{"action":"join"}"#),
        Just(r#"{"action":"ask"}"#),
        Just(r#"{"action":"none"}"#),
        Just("not JSON")
    ];
    let when = prop_oneof![(0..3_usize).prop_map(When::Next), Just(When::Sometimes(0.3))];
    prop_oneof![
        6 => any::<bool>().prop_map(|has_token| Step::Upgrade { has_token }),
        12 => (which.clone(), message).prop_map(|(which, body)| Step::Message(which, body)),
        3 => which.clone().prop_map(Step::Closed),
        1 => which.clone().prop_map(Step::Violation),
        1 => which.clone().prop_map(Step::NeverOpened),
        // Mostly responses that accept a client; otherwise there would be few open connections.
        16 => (which.clone(), prop_oneof![3 => Just(4_usize), 4 => Just(1_usize), 2 => 0..ANSWERS.len()])
            .prop_map(|(which, answer)| Step::Answer(which, answer)),
        6 => (which.clone(), any::<bool>()).prop_map(|(which, own)| Step::Post(which, own)),
        2 => which.clone().prop_map(Step::Get),
        2 => which.clone().prop_map(Step::Delete),
        4 => prop_oneof![0..30_u64, 500..700_u64, 7000..7300_u64].prop_map(Step::Wait),
        3 => (which.clone(), when).prop_map(|(fault, when)| Step::Inject(fault, when)),
        2 => (which.clone(), which).prop_map(|(fault, which)| Step::InjectOn(fault, which)),
        1 => Just(Step::ClearFaults),
        1 => Just(Step::Drain),
    ]
}

/// The state outside of the machine, which checks the invariants.
struct Outside {
    machine: Machine,
    now: SystemTime,
    connections: Vec<ConnectionId>,
    running: Vec<(CallId, ConnectionId, &'static str)>,
    verdicts: HashMap<ConnectionId, bool>,
    closed: HashSet<ConnectionId>,
    disconnects: HashMap<ConnectionId, usize>,
    loses_disconnects: bool,
    is_drained: bool,
}

impl Outside {
    fn new(seed: u64) -> Self {
        let mut api = api();
        api.concurrency = 40;
        api.function_concurrency.insert(4, 3);
        Self {
            machine: Machine::new(api, seed),
            now: at(0),
            connections: Vec::new(),
            running: Vec::new(),
            verdicts: HashMap::new(),
            closed: HashSet::new(),
            disconnects: HashMap::new(),
            loses_disconnects: false,
            is_drained: false,
        }
    }

    fn some(&self, which: usize) -> Option<ConnectionId> {
        which.checked_rem(self.connections.len()).map(|which| self.connections[which].clone())
    }

    fn apply(&mut self, input: Input<'_>) -> Reply {
        let Output { reply, effects, notes } = self.machine.apply(self.now, input);
        if let Reply::Connection(id) = &reply {
            self.connections.push(id.clone());
        }
        for effect in effects {
            self.see(effect);
        }
        for (_, what) in notes {
            if let EntryKind::Fault { fault: Fault::DisconnectLost } = what {
                self.loses_disconnects = true;
            }
        }
        self.check();
        reply
    }

    fn see(&mut self, effect: Effect) {
        match effect {
            Effect::Invoke { call, .. } => {
                let made = &self.machine.calls[&call];
                let (connection, purpose) = (made.connection().clone(), made.purpose());
                let name = match purpose {
                    Purpose::Disconnect => "$disconnect",
                    Purpose::Authorize => "authorizer",
                    Purpose::Connect => "$connect",
                    Purpose::Message { .. } => "message",
                };
                if name == "$disconnect" {
                    *self.disconnects.entry(connection.clone()).or_default() += 1;
                    assert_eq!(self.verdicts.get(&connection), Some(&true), "$disconnect of what never was");
                }
                self.running.push((call, connection, name));
            }
            Effect::Accept { connection, .. } => {
                assert!(self.verdicts.insert(connection, true).is_none(), "a second verdict");
                assert!(!self.is_drained, "let in by a gateway that ends");
            }
            Effect::Refuse { connection, refusal } => {
                assert!((300..600).contains(&refusal.status), "{refusal:?}");
                assert!(self.verdicts.insert(connection, false).is_none(), "a second verdict");
            }
            Effect::Send { connection, .. } | Effect::Push { connection, .. } => {
                assert_eq!(self.verdicts.get(&connection), Some(&true), "a frame before the handshake's end");
                assert!(!self.closed.contains(&connection), "a frame after the close frame");
            }
            Effect::Close { connection, .. } => {
                assert_eq!(self.verdicts.get(&connection), Some(&true), "closed before it was open");
                assert!(self.closed.insert(connection), "closed twice");
            }
            Effect::Hold { .. } => {}
        }
    }

    fn check(&self) {
        let machine = &self.machine;
        assert_eq!(machine.calls.len(), machine.running.values().sum::<usize>());
        assert!(machine.calls.len() <= 40, "LIM-7");
        assert!(machine.running.get(&4).copied().unwrap_or_default() <= 3, "LIM-7");
        let late = machine.late.len();
        let (open, waiting) =
            (machine.open_connections().len(), machine.calls.values().filter(|call| !call.is_late()).count());
        assert_eq!(machine.due.len(), late + open + waiting, "everything that waits is due once");
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Upgrade { has_token } => {
                let query: &[_] = if has_token { &[("Auth", "token")] } else { &[] };
                let stage = Stage::new("dev").unwrap();
                self.apply(Input::Upgrade { stage, handshake: handshake(query) });
            }
            Step::Message(which, text) => {
                if let Some(id) = self.some(which) {
                    self.apply(Input::Message { connection: &id, text });
                }
            }
            Step::Closed(which) => {
                if let Some(id) = self.some(which) {
                    if self.verdicts.get(&id) == Some(&true) && !self.machine.is_half_open(&id) {
                        self.closed.insert(id.clone());
                    }
                    self.apply(Input::Closed { connection: &id, code: 1000, reason: "" });
                }
            }
            Step::Violation(which) => {
                if let Some(id) = self.some(which) {
                    self.apply(Input::Violation { connection: &id, code: 1009, reason: "Message too big" });
                }
            }
            Step::NeverOpened(which) => {
                if let Some(id) = self.some(which) {
                    self.apply(Input::NeverOpened { connection: &id });
                }
            }
            Step::Answer(which, answer) => {
                let Some(which) = which.checked_rem(self.running.len()) else { return };
                let (call, _, _) = self.running.swap_remove(which);
                let answer = match ANSWERS[answer] {
                    "fails" => Err(FunctionError::new("Error", "oops")),
                    answer => Ok(answer.as_bytes().to_vec()),
                };
                self.apply(Input::Answered { call, answer });
            }
            Step::Post(which, own_stage) => {
                if let Some(id) = self.some(which) {
                    let stage = own_stage.then_some("dev");
                    let call = Managed::Post("pushed".to_owned());
                    let reply = self.apply(Input::Manage { stage, id: id.as_str(), call });
                    if self.verdicts.get(&id) != Some(&true) || self.closed.contains(&id) {
                        let is_taken = matches!(reply, Reply::Answer(Ok(_)));
                        assert!(!is_taken, "CON-6, LIM-8: taken for a connection that is not open");
                    }
                }
            }
            Step::Get(which) => {
                if let Some(id) = self.some(which) {
                    self.apply(Input::Manage { stage: None, id: id.as_str(), call: Managed::Get });
                }
            }
            Step::Delete(which) => {
                if let Some(id) = self.some(which) {
                    self.apply(Input::Manage { stage: None, id: id.as_str(), call: Managed::Delete });
                }
            }
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.apply(Input::Tick);
                assert!(self.machine.next_due().is_none_or(|due| due > self.now), "nothing is due after a tick");
            }
            Step::Inject(fault, when) => {
                self.apply(Input::Inject { fault: FAULTS[fault % FAULTS.len()], when });
            }
            Step::InjectOn(fault, which) => {
                if let Some(id) = self.some(which) {
                    self.apply(Input::Inject { fault: FAULTS[fault % FAULTS.len()], when: When::On(id) });
                }
            }
            Step::ClearFaults => {
                let before = self.machine.open_connections();
                self.apply(Input::ClearFaults);
                let open = self.machine.open_connections();
                self.closed.extend(before.into_iter().filter(|id| !open.contains(id)));
            }
            Step::Drain => {
                // Before the rest, since it must not be let in by what comes of it.
                self.apply(Input::Drain);
                self.is_drained = true;
                assert!(self.machine.connections.is_empty(), "drained");
            }
        }
    }

    /// Lets everything finish, and checks that nothing remains.
    fn finish(mut self) {
        self.take(Step::ClearFaults);
        for _ in 0..200 {
            while !self.running.is_empty() {
                self.take(Step::Answer(0, 1));
            }
            self.take(Step::Wait(7200));
            if self.running.is_empty() && self.machine.next_due().is_none() {
                break;
            }
        }
        let machine = &self.machine;
        assert!(machine.connections.is_empty() && machine.calls.is_empty() && machine.due.is_empty());
        assert!(machine.late.is_empty() && machine.running.is_empty());
        assert!(machine.faults.active.is_empty(), "{:?}", machine.faults.active);
        for id in &self.connections {
            let is_accepted = self.verdicts[id];
            let told = self.disconnects.get(id).copied().unwrap_or_default();
            assert!(told <= usize::from(is_accepted), "DIS-2");
        }
    }
}

/// The random test found this sequence.
#[test]
fn half_open_fault_during_the_handshake_loses_nothing() {
    let half_open = FAULTS.iter().position(|fault| *fault == Fault::HalfOpen).unwrap();
    let mut outside = Outside::new(0);
    let steps =
        [Step::Upgrade { has_token: true }, Step::InjectOn(half_open, 0), Step::Closed(0), Step::Post(0, false)];
    for step in steps {
        outside.take(step);
    }
    outside.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold_for_any_inputs_and_faults(
        seed: u64,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut outside = Outside::new(seed);
        for step in steps {
            outside.take(step);
        }
        outside.finish();
    }

    #[test]
    fn same_seed_and_inputs_produce_same_effects(
        seed: u64,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let run = |steps: Vec<Step>| {
            let mut outside = Outside::new(seed);
            for step in steps {
                outside.take(step);
            }
            (outside.connections, outside.running, outside.closed.len())
        };
        prop_assert_eq!(run(steps.clone()), run(steps));
    }
}
