//! Slices of the connections of a namespace.

use std::fmt;

use super::Connection;

/// The number of positions to which connections are hashed.
pub(super) const POSITIONS: u16 = 4096;

/// A part of the connections of a namespace, by a hash that never changes.
///
/// Connections of one principal belong to the same slice. A [sweep](crate::hub::Hub::sweep) checks
/// one slice after the other, so it needs to store nothing.
///
/// # Examples
///
/// ```
/// use lambda_websocket::registry::{Connection, Slice};
///
/// # fn show(connection: Connection) {
/// let quarters = (0..4).map(|index| Slice::new(index, 4));
/// assert_eq!(quarters.filter(|slice| slice.contains(&connection)).count(), 1);
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    start: u16,
    /// Exclusive; at most [`POSITIONS`].
    end: u16,
}

impl Slice {
    /// Returns one of `count` slices of about the same size.
    ///
    /// `index` counts from 0; an index beyond the last slice wraps around. `count` is clamped to 1
    /// to 4096.
    pub fn new(index: u16, count: u16) -> Self {
        let count = u32::from(count.clamp(1, POSITIONS));
        let index = u32::from(index).checked_rem(count).unwrap_or_default();
        let at = |index: u32| {
            let position = index.saturating_mul(u32::from(POSITIONS)).checked_div(count).unwrap_or_default();
            u16::try_from(position).unwrap_or(POSITIONS)
        };
        Self { start: at(index), end: at(index.saturating_add(1)) }
    }

    /// Returns the slice of the positions from `start` to before `end`, of [`POSITIONS`].
    #[cfg(feature = "hub")]
    pub(crate) fn of_positions(start: u16, end: u16) -> Self {
        Self { start: start.min(POSITIONS), end: end.min(POSITIONS) }
    }

    /// Returns whether a connection belongs to the slice.
    pub fn contains(&self, connection: &Connection) -> bool {
        (self.start..self.end).contains(&position(connection))
    }

    #[cfg(feature = "dynamodb")]
    pub(super) fn range(&self) -> std::ops::Range<u16> {
        self.start..self.end
    }
}

/// Returns the position of a connection, from its principal or else its id.
pub(super) fn position(connection: &Connection) -> u16 {
    position_of(connection.principal().map_or(connection.id().as_str(), |principal| principal.as_str()))
}

/// FNV-1a, folded to twelve bits. Its result must never change, or stored records are not found.
pub(super) fn position_of(name: &str) -> u16 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let folded = (hash >> 24) ^ (hash >> 12) ^ hash;
    u16::try_from(folded & 0x0fff).unwrap_or_default()
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({}..{} of {POSITIONS})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_of_a_name_is_stable() {
        assert_eq!(["", "a", "alice", "L0SM9cOFvHcCIhw=", "日本"].map(position_of), POSITIONS_OF_OLD);
    }

    const POSITIONS_OF_OLD: [u16; 5] = [3213, 2314, 321, 842, 3232];

    #[test]
    fn positions_are_spread_evenly() {
        let mut quarters = [0_usize; 4];
        for number in 0..40_000 {
            if let Some(quarter) = quarters.get_mut(usize::from(position_of(&format!("user-{number}")) / 1024)) {
                *quarter = quarter.saturating_add(1);
            }
        }
        assert!(quarters.iter().all(|quarter| (9_000..11_000).contains(quarter)), "{quarters:?}");
    }

    #[test]
    fn slices_share_the_positions() {
        for count in [1, 2, 3, 7, 1000, 4096] {
            let mut next = 0;
            for index in 0..count {
                let slice = Slice::new(index, count);
                assert_eq!(slice.start, next, "{index} of {count}");
                next = slice.end;
            }
            assert_eq!(next, POSITIONS, "{count}");
        }
        assert_eq!(Slice::new(5, 4), Slice::new(1, 4));
        assert_eq!(Slice::new(0, 0), Slice::new(0, 1));
    }
}
