//! The cost of pushes and broadcasts, compared with the SDK's client and raw sockets.
//!
//! ```sh
//! cargo bench --bench push --no-default-features --features sdk,direct           # all of it
//! cargo bench --bench push --no-default-features --features sdk,direct -- slow   # slow recipients alone
//! cargo bench --bench push --no-default-features --features sdk,direct -- stream # tokens alone
//! ```
//!
//! The server is this program in another process. CPU time is that of the client's process only,
//! which has one thread.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench that panics has failed, which is all it can do"
)]

#[path = "../../tests/support/authority.rs"]
mod authority;
mod contenders;
mod first;
mod server;
mod slow;
mod stream;
#[path = "../../tests/support/stub.rs"]
mod stub;

use std::time::{Duration, Instant};

use lambda_websocket::Pusher;
use lambda_websocket::push::Push;

use self::contenders::{bare_sdk, direct, payload, raw_floor, sdk};
use self::server::Server;
use self::stub::{Behavior, connection_id};

/// The cost of a run.
#[derive(Clone, Copy)]
pub struct Cost {
    pushes: f64,
    /// CPU microseconds per push.
    cpu: f64,
    wall: Duration,
}

impl Cost {
    fn rate(&self) -> f64 {
        self.pushes / self.wall.as_secs_f64()
    }
}

/// Returns the CPU nanoseconds of this process.
fn cpu_time() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a system with /proc");
    let of = |task: std::path::PathBuf| std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    tasks.map(|task| of(task.unwrap().path()).split(' ').next().unwrap_or_default().parse().unwrap_or(0)).sum::<u64>()
}

async fn measure(pushes: usize, run: impl Future<Output = ()>) -> Cost {
    let (cpu, start) = (cpu_time(), Instant::now());
    run.await;
    let wall = start.elapsed();
    Cost { pushes: pushes as f64, cpu: (cpu_time() - cpu) as f64 / 1000.0 / pushes as f64, wall }
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|one, other| one.cpu.total_cmp(&other.cpu));
    costs[costs.len() / 2]
}

fn best(costs: &[Cost]) -> f64 {
    costs.iter().map(Cost::rate).fold(0.0, f64::max)
}

async fn broadcast(pusher: &Pusher, pushes: usize, concurrency: usize) {
    let pusher = pusher.clone().with_concurrency(concurrency).with_timeout(Duration::from_secs(600));
    let stream = futures_util::stream::iter((0..pushes).map(connection_id));
    let report = pusher.broadcast_payload(stream, payload()).await;
    assert_eq!(report.delivered, pushes, "{report}");
}

/// Measures every contender at this concurrency, in alternating rounds.
async fn costs(concurrency: usize, rounds: usize) {
    let server = Server::start(Behavior { forgets: true, ..Behavior::default() });
    let (direct, sdk) = (Pusher::new(direct(&server)), Pusher::new(sdk(&server)));
    let (many, few) = if concurrency == 1 { (4_000, 2_000) } else { (20_000, 5_000) };
    let mut seen: [Vec<Cost>; 4] = Default::default();
    for _ in 0..rounds {
        seen[0].push(measure(many, broadcast(&direct, many, concurrency)).await);
        seen[1].push(measure(few, broadcast(&sdk, few, concurrency)).await);
        seen[2].push(measure(few, bare_sdk(&server, few, concurrency)).await);
        seen[3].push(measure(many, raw_floor(&server, many, concurrency)).await);
    }
    let rates = seen.each_ref().map(|costs| best(costs));
    let [ours, ours_sdk, bare, floor] = seen.map(median).map(|cost| cost.cpu);
    let goals = if concurrency == 16 { ["0.17", "2.2"] } else { ["none"; 2] };
    println!(
        "figure push_cpu_{concurrency}: direct {ours:.1} µs vs bare SDK {bare:.1} µs = {:.3} (goal {})",
        ours / bare,
        goals[0]
    );
    println!(
        "figure push_cpu_{concurrency}: direct {ours:.1} µs vs raw socket {floor:.1} µs = {:.2} (goal {})",
        ours / floor,
        goals[1]
    );
    println!(
        "figure push_cpu_{concurrency}: sdk {ours_sdk:.1} µs vs bare SDK {bare:.1} µs = {:.2} (goal none)",
        ours_sdk / bare
    );
    let [direct, sdk, bare, floor] = rates;
    println!(
        "figure push_rate_{concurrency}: direct {direct:.0}/s, sdk {sdk:.0}/s, bare SDK {bare:.0}/s, raw socket {floor:.0}/s"
    );
}

/// Measures the same over TLS, where the endpoint offers HTTP/2, as API Gateway does.
async fn costs_with_tls(concurrency: usize, rounds: usize) {
    let server = Server::start_with_tls();
    let direct = Pusher::new(direct(&server));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(measure(20_000, broadcast(&direct, 20_000, concurrency)).await);
        theirs.push(measure(5_000, bare_sdk(&server, 5_000, concurrency)).await);
    }
    let (rate, their_rate) = (best(&ours), best(&theirs));
    let (ours, theirs) = (median(ours).cpu, median(theirs).cpu);
    println!(
        "figure push_cpu_tls_{concurrency}: direct {ours:.1} µs vs bare SDK {theirs:.1} µs = {:.3}; {rate:.0}/s vs {their_rate:.0}/s",
        ours / theirs
    );
}

/// Measures what `Pusher` adds to a transport.
async fn layer<T: Push + Clone + 'static>(name: &str, transport: T, pushes: usize) {
    let pusher = Pusher::new(transport.clone());
    let payload = payload();
    let id = connection_id(7);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        theirs.push(
            measure(pushes, async {
                for _ in 0..pushes {
                    transport.post(&id, &payload).await.unwrap();
                }
            })
            .await,
        );
        ours.push(
            measure(pushes, async {
                for _ in 0..pushes {
                    pusher.send_payload(&id, &payload).await.unwrap();
                }
            })
            .await,
        );
    }
    let (ours, theirs) = (median(ours).cpu, median(theirs).cpu);
    println!("figure push_layer_{name}: {ours:.2} µs vs {theirs:.2} µs = {:.3} (goal 1.05)", ours / theirs);
}

/// Measures broadcasts to 100,000 connections, to a slow endpoint, and to a failing one.
async fn broadcasts() {
    let server = Server::start(Behavior { forgets: true, ..Behavior::default() });
    for (name, pusher) in [("direct", Pusher::new(direct(&server))), ("sdk", Pusher::new(sdk(&server)))] {
        for (count, concurrency) in [(1_000, 64), (100_000, 64)] {
            if name == "sdk" && count > 1_000 {
                continue;
            }
            let cost = measure(count, broadcast(&pusher, count, concurrency)).await;
            let (rate, wall) = (cost.rate(), cost.wall.as_millis());
            println!(
                "figure broadcast_{name}_{count}_at_{concurrency}: {wall} ms, {rate:.0}/s, {:.1} µs CPU each",
                cost.cpu
            );
        }
    }

    let latency = Duration::from_millis(20);
    let server = Server::start(Behavior { latency, forgets: true, ..Behavior::default() });
    let pusher = Pusher::new(direct(&server));
    broadcast(&pusher, 256, 256).await;
    for concurrency in [16, 64, 256] {
        let count = concurrency * 100;
        let cost = measure(count, broadcast(&pusher, count, concurrency)).await;
        let ideal = latency * 100;
        let ratio = cost.wall.as_secs_f64() / ideal.as_secs_f64();
        println!(
            "figure broadcast_latency_20_ms_at_{concurrency}: {} ms vs ids / concurrency × latency {} ms = {ratio:.2} (goal 1.2)",
            cost.wall.as_millis(),
            ideal.as_millis()
        );
    }

    let behavior = Behavior { gone: 0.05, throttled: 0.05, stalled: 0.01, seed: 3, ..Behavior::default() };
    let server = Server::start(behavior);
    let pusher = Pusher::new(direct(&server)).with_attempt_timeout(Duration::from_millis(500));
    let pusher = pusher.with_timeout(Duration::from_secs(60));
    let report = pusher.broadcast((0..10_000).map(connection_id), "hello").unwrap().await;
    let (delivered, gone) = server.answered();
    println!("figure broadcast_out_of_order: {report}; the server delivered {delivered} and found {gone} gone");
    assert_eq!((report.delivered, report.gone.len(), report.ids()), (delivered, gone, 10_000));
}

/// Measures the peak memory of a broadcast to this many, in a separate process.
async fn memory(count: usize) {
    let server = Server::start(Behavior { forgets: true, ..Behavior::default() });
    broadcast(&Pusher::new(direct(&server)), count, 64).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("{}", peak.trim().trim_end_matches(" kB"));
}

fn memories() {
    let program = std::env::current_exe().unwrap();
    let peak = |count: usize| -> f64 {
        let ran = std::process::Command::new(&program).args(["--memory", &count.to_string()]).output().unwrap();
        String::from_utf8(ran.stdout).unwrap().trim().parse().unwrap()
    };
    let (few, many) = (peak(10_000), peak(100_000));
    println!(
        "figure broadcast_peak_memory: {many:.0} KiB for 100000 vs {few:.0} KiB for 10000 = {:.2} (goal 1)",
        many / few
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut arguments = std::env::args().skip(1);
    match arguments.next().unwrap_or_default().as_str() {
        "--stub" => return runtime.block_on(server::serve(&arguments.collect::<Vec<_>>(), false)),
        "--tls-stub" => return runtime.block_on(server::serve(&arguments.collect::<Vec<_>>(), true)),
        "--first" => return runtime.block_on(first::push(&arguments.next().unwrap())),
        "--memory" => return runtime.block_on(memory(arguments.next().unwrap().parse().unwrap())),
        "--stream" => return stream::repeat(&arguments.next().unwrap(), arguments.next().unwrap().parse().unwrap()),
        "slow" => return slow::measure(),
        "stream" => return stream::measure(),
        _ => {}
    }
    slow::measure();
    stream::measure();
    runtime.block_on(async {
        for (concurrency, rounds) in [(16, 7), (1, 3), (64, 5), (256, 3)] {
            costs(concurrency, rounds).await;
            costs_with_tls(concurrency, rounds).await;
        }
        let server = Server::start(Behavior { forgets: true, ..Behavior::default() });
        layer("direct", direct(&server), 5_000).await;
        layer("sdk", sdk(&server), 2_000).await;
        broadcasts().await;
    });
    memories();
    first::measure();
}
