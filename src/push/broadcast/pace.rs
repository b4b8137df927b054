//! Limits the concurrent pushes: fewer while the account is throttled, more again afterwards.
//!
//! API Gateway returns 429 for two reasons: the account sends too much, or this one client does not
//! read. Only the first is a reason to slow down, and the response does not tell them apart. The
//! next attempt does: when the account is throttled, a refused connection succeeds the next time as
//! often as any other; a client that does not read is refused again while the others succeed.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum time for which responses are judged together.
const WINDOW: Duration = Duration::from_millis(100);
/// A window with fewer responses stays open, up to [`MAX_WINDOW`].
const MIN_ANSWERS: u32 = 40;
const MAX_WINDOW: Duration = Duration::from_secs(1);
/// The minimum number of refusals, and of second attempts; fewer are chance.
const MIN_SIGNS: u32 = 4;
/// With fewer first attempts in a window, only the retries are judged.
const MIN_FIRST: u32 = 8;
/// The account counts as throttled for this long after the last sign of it.
const AFTERMATH: Duration = Duration::from_secs(2);
/// While every push is refused, the maximum divided by this number stays under way.
const FLOOR: f64 = 8.0;
/// A calm window raises the limit by this factor. A larger one would overshoot before the next
/// window shows it.
const RAISE: f64 = 1.1;

/// A limit that halves when the account is throttled, and rises by a tenth per calm window.
#[derive(Debug)]
pub(super) struct Pace {
    most: f64,
    limit: f64,
    /// The number of cuts. A response to a push from before the last cut says nothing about the
    /// current limit.
    cuts: u32,
    window: Option<Window>,
    throttled_at: Option<Instant>,
}

/// Whether a push is the first attempt, or one after a 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    AfterRefusal,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    first: Answers,
    again: Answers,
}

#[derive(Debug, Default, Clone, Copy)]
struct Answers {
    taken: u32,
    refused: u32,
}

impl Answers {
    fn all(self) -> u32 {
        self.taken.saturating_add(self.refused)
    }

    fn share_taken(self) -> f64 {
        f64::from(self.taken) / f64::from(self.all().max(1))
    }
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX).into();
        Self { most, limit: most, cuts: 0, window: None, throttled_at: None }
    }

    /// Returns the limit, which is at least 1.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the limit is between 1 and the maximum"
    )]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Returns the number of cuts, which a push that begins now reports with its response.
    pub(super) fn cuts(&self) -> u32 {
        self.cuts
    }

    /// Returns whether 429s are, or recently were, due to the account rather than to single
    /// clients.
    pub(super) fn is_throttled(&self, now: Instant) -> bool {
        self.throttled_at.is_some_and(|at| now.saturating_duration_since(at) < AFTERMATH)
    }

    /// Records that the endpoint accepted a push.
    pub(super) fn taken(&mut self, now: Instant, attempt: Attempt, cuts: u32) {
        self.answered(now, attempt, cuts, |answers| answers.taken = answers.taken.saturating_add(1));
    }

    /// Records that the endpoint refused a push with 429.
    pub(super) fn refused(&mut self, now: Instant, attempt: Attempt, cuts: u32) {
        self.answered(now, attempt, cuts, |answers| answers.refused = answers.refused.saturating_add(1));
    }

    fn answered(&mut self, now: Instant, attempt: Attempt, cuts: u32, count: impl FnOnce(&mut Answers)) {
        if cuts != self.cuts {
            return;
        }
        let window =
            self.window.get_or_insert(Window { since: now, first: Answers::default(), again: Answers::default() });
        count(match attempt {
            Attempt::First => &mut window.first,
            Attempt::AfterRefusal => &mut window.again,
        });
        let age = now.saturating_duration_since(window.since);
        let answers = window.first.all().saturating_add(window.again.all());
        if age >= WINDOW && answers >= MIN_ANSWERS || age >= MAX_WINDOW {
            let (floor, is_calm) = (window.floor(self.most), window.is_calm());
            self.window = None;
            if let Some(floor) = floor {
                self.throttled_at = Some(now);
                self.cuts = self.cuts.wrapping_add(1);
                self.limit = (self.limit / 2.0).max(floor.min(self.limit));
            } else if is_calm {
                self.limit = (self.limit * RAISE).min(self.most);
            }
        }
    }
}

impl Window {
    /// Returns whether hardly any first attempt was refused.
    fn is_calm(&self) -> bool {
        self.first.refused.saturating_mul(10) <= self.first.all()
    }

    /// Returns the lower bound of a cut, if these responses show a throttled account.
    fn floor(&self, most: f64) -> Option<f64> {
        let Self { first, again, .. } = self;
        let refused = first.refused.saturating_add(again.refused);
        let all = first.all().saturating_add(again.all());
        let is_enough = refused >= MIN_SIGNS && again.all() >= MIN_SIGNS && refused.saturating_mul(10) >= all;
        if !is_enough {
            return None;
        }
        match first.all() >= MIN_FIRST {
            // No push succeeds, so the reason for the refusals is unknown.
            true if first.taken == 0 && again.taken == 0 => Some((most / FLOOR).max(1.0)),
            true => (again.share_taken() >= first.share_taken() / 2.0).then_some(1.0),
            false => (again.share_taken() >= 0.1).then_some(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records a window of responses and returns the limit after it.
    async fn window(pace: &mut Pace, first: (u32, u32), again: (u32, u32)) -> usize {
        for (attempt, (taken, refused)) in [(Attempt::First, first), (Attempt::AfterRefusal, again)] {
            (0..taken).for_each(|_| pace.taken(Instant::now(), attempt, pace.cuts()));
            (0..refused).for_each(|_| pace.refused(Instant::now(), attempt, pace.cuts()));
        }
        tokio::time::advance(MAX_WINDOW).await;
        pace.taken(Instant::now(), Attempt::First, pace.cuts());
        pace.limit()
    }

    #[tokio::test(start_paused = true)]
    async fn lim_5_account_throttling_halves_the_pace_and_successes_raise_it() {
        let mut pace = Pace::new(64);
        assert_eq!(window(&mut pace, (50, 50), (10, 10)).await, 32, "together they are one sign");
        assert!(pace.is_throttled(Instant::now()));
        for _ in 0..10 {
            window(&mut pace, (50, 50), (10, 10)).await;
        }
        assert!(pace.limit() < 10, "{}", pace.limit());
        for _ in 0..50 {
            window(&mut pace, (50, 0), (0, 0)).await;
        }
        assert_eq!(pace.limit(), 64);
        assert!(!pace.is_throttled(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn mgt_7_throttled_connections_do_not_change_the_pace() {
        let mut pace = Pace::new(64);
        for (first, again) in [((100, 5), (0, 5)), ((70, 30), (0, 100)), ((100, 100), (0, 0)), ((0, 0), (0, 300))] {
            assert_eq!(window(&mut pace, first, again).await, 64, "{first:?} {again:?}");
            assert!(!pace.is_throttled(Instant::now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mgt_7_pace_never_drops_below_an_eighth() {
        let mut pace = Pace::new(64);
        for _ in 0..10 {
            for attempt in [Attempt::First, Attempt::AfterRefusal].into_iter().cycle().take(100) {
                pace.refused(Instant::now(), attempt, pace.cuts());
            }
            tokio::time::advance(WINDOW).await;
            pace.refused(Instant::now(), Attempt::First, pace.cuts());
        }
        assert_eq!(pace.limit(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn responses_from_before_a_cut_do_not_cut_again() {
        let mut pace = Pace::new(64);
        let before = pace.cuts();
        window(&mut pace, (50, 50), (10, 10)).await;
        tokio::time::advance(MAX_WINDOW).await;
        for _ in 0..200 {
            pace.refused(Instant::now(), Attempt::AfterRefusal, before);
        }
        assert_eq!(pace.limit(), 32);
    }
}
