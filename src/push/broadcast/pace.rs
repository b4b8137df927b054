//! How many pushes may be under way: fewer when the account is throttled, more again when it is not.
//!
//! API Gateway answers 429 for two reasons: the account sends too much, or this one client does not read. Only the first is a
//! reason to slow down, and the answer does not tell them apart. What tells them apart is the next attempt: when the account is
//! throttled, a connection that was refused gets through the next time as often as any other; a client that does not read is
//! refused again while the others get through.

use std::time::Duration;

use tokio::time::Instant;

/// Answers are judged together for at least this time.
const WINDOW: Duration = Duration::from_millis(100);
/// A window with fewer answers stays open, up to [`MAX_WINDOW`].
const MIN_ANSWERS: u32 = 40;
const MAX_WINDOW: Duration = Duration::from_secs(1);
/// So many refusals, and as many second attempts, say something; fewer are chance.
const MIN_SIGNS: u32 = 4;
/// First attempts in a window, below which the retries alone are judged.
const MIN_FIRST: u32 = 8;
/// For so long after the last sign of it the account counts as throttled.
const AFTERMATH: Duration = Duration::from_secs(2);
/// While everyone is refused, one in so many of the most pushes stays under way.
const FLOOR: f64 = 8.0;
/// A window without trouble raises the pace by this factor. More would overshoot before the next window shows it.
const RAISE: f64 = 1.1;

/// Halves at a sign that the account is throttled, and rises by a tenth in each window without one.
#[derive(Debug)]
pub(super) struct Pace {
    most: f64,
    limit: f64,
    /// How often it was cut. An answer to a push that began before the last cut says nothing about the pace since.
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

    /// At least 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and the most")]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// What a push that begins now gives back with its answer.
    pub(super) fn cuts(&self) -> u32 {
        self.cuts
    }

    /// Whether 429s are the account's, or were a short time ago, rather than those of single connections.
    pub(super) fn is_throttled(&self, now: Instant) -> bool {
        self.throttled_at.is_some_and(|at| now.saturating_duration_since(at) < AFTERMATH)
    }

    /// The endpoint took a push.
    pub(super) fn taken(&mut self, now: Instant, attempt: Attempt, cuts: u32) {
        self.answered(now, attempt, cuts, |answers| answers.taken = answers.taken.saturating_add(1));
    }

    /// The endpoint refused a push with 429.
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
    /// Whether hardly any connection was refused at its first attempt.
    fn is_calm(&self) -> bool {
        self.first.refused.saturating_mul(10) <= self.first.all()
    }

    /// Where a cut ends, when these answers are those of a throttled account.
    fn floor(&self, most: f64) -> Option<f64> {
        let Self { first, again, .. } = self;
        let refused = first.refused.saturating_add(again.refused);
        let all = first.all().saturating_add(again.all());
        let is_enough = refused >= MIN_SIGNS && again.all() >= MIN_SIGNS && refused.saturating_mul(10) >= all;
        if !is_enough {
            return None;
        }
        match first.all() >= MIN_FIRST {
            // Nobody gets through, so nothing tells whose the refusals are.
            true if first.taken == 0 && again.taken == 0 => Some((most / FLOOR).max(1.0)),
            true => (again.share_taken() >= first.share_taken() / 2.0).then_some(1.0),
            false => (again.share_taken() >= 0.1).then_some(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives it a window of answers, and returns the limit after it.
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
    async fn lim_5_refusals_of_the_account_halve_the_pace_and_successes_raise_it_again() {
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
    async fn mgt_7_refusals_of_single_connections_do_not_change_the_pace() {
        let mut pace = Pace::new(64);
        for (first, again) in [((100, 5), (0, 5)), ((70, 30), (0, 100)), ((100, 100), (0, 0)), ((0, 0), (0, 300))] {
            assert_eq!(window(&mut pace, first, again).await, 64, "{first:?} {again:?}");
            assert!(!pace.is_throttled(Instant::now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mgt_7_while_everyone_is_refused_an_eighth_stays_under_way() {
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
    async fn answers_to_pushes_from_before_a_cut_do_not_cut_again() {
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
