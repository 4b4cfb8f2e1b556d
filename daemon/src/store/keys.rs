//! Keys as the store remembers them: their states, their moves, and what in a record depends on them.

use super::Header;

/// Where a key stands in its life. The moves are [`KeyState::may_become`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is being made. Nothing was ever done with it.
    Pending,
    /// New work is done with it.
    Active,
    /// It opens, verifies and finds what it did before, and does nothing new.
    Retired,
    /// It is gone from the token, or about to go. For ever.
    Destroyed,
}

impl KeyState {
    /// Whether a key may go from this state to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::Active) | (Self::Active, Self::Retired) | (Self::Retired, Self::Destroyed)
        )
    }

    /// Whether the token must hold the key.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Retired)
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Destroyed => "destroyed",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Active => 1,
            Self::Retired => 2,
            Self::Destroyed => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Retired, Self::Destroyed]
            .into_iter()
            .find(|state| state.code() == code)
    }
}

/// A key as the store remembers it. Times are milliseconds of Unix time unless their name says seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Where it stands.
    pub state: KeyState,
    /// When it was made.
    pub created_at_ms: u64,
    /// When it was retired.
    pub retired_at_ms: Option<u64>,
    /// When it was destroyed.
    pub destroyed_at_ms: Option<u64>,
    /// Until when something that is not in the store may need it, in seconds: a JWT, an envelope.
    pub needed_until_s: u64,
    /// How many encryptions are reserved for it.
    pub reserved_seals: u64,
    /// How many records it holds: the census.
    pub records: u64,
    /// Its check value.
    pub check_value: Vec<u8>,
}

impl StoredKey {
    /// A key that is recorded now and in `state`.
    pub const fn new(state: KeyState, created_at_ms: u64, check_value: Vec<u8>) -> Self {
        Self {
            state,
            created_at_ms,
            retired_at_ms: None,
            destroyed_at_ms: None,
            needed_until_s: 0,
            reserved_seals: 0,
            records: 0,
            check_value,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.state.code()];
        for number in [
            self.created_at_ms,
            self.retired_at_ms.unwrap_or(0),
            self.destroyed_at_ms.unwrap_or(0),
            self.needed_until_s,
            self.reserved_seals,
            self.records,
        ] {
            out.extend(number.to_be_bytes());
        }
        out.extend(&self.check_value);
        out
    }

    /// Reads what `encode` wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (state, mut rest) = bytes.split_first()?;
        let mut number = || {
            let (head, tail) = rest.split_first_chunk()?;
            rest = tail;
            Some(u64::from_be_bytes(*head))
        };
        let (created_at_ms, retired, destroyed) = (number()?, number()?, number()?);
        let (needed_until_s, reserved_seals, records) = (number()?, number()?, number()?);
        Some(Self {
            state: KeyState::from_code(*state)?,
            created_at_ms,
            retired_at_ms: Some(retired).filter(|at| *at != 0),
            destroyed_at_ms: Some(destroyed).filter(|at| *at != 0),
            needed_until_s,
            reserved_seals,
            records,
            check_value: rest.to_vec(),
        })
    }
}

/// What in a record depends on a version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRole {
    /// Its parts are sealed with it.
    Record,
    /// Its fingerprint was made with it.
    Fingerprint,
    /// Its holder's hash was made with it.
    Holder,
}

impl KeyRole {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Record, Self::Fingerprint, Self::Holder];

    /// The purpose of its keys, as it starts their names.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Fingerprint => "fingerprint",
            Self::Holder => "holder",
        }
    }

    /// The role of keys of `purpose`, if records depend on any.
    pub fn of(purpose: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.purpose() == purpose)
    }

    /// The version `header` depends on in this role, if it does.
    pub fn version(self, header: &Header) -> Option<u32> {
        match self {
            Self::Record => Some(header.key_version),
            Self::Fingerprint => Some(header.fingerprint_version),
            Self::Holder => header.holder.map(|holder| holder.version),
        }
    }
}

/// A move in the life of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMove {
    /// It is about to be made.
    Begin,
    /// It was made: new work is done with it, and the key before it, which may be needed until `needed_until_s`,
    /// is retired.
    Activate {
        /// Its check value.
        check_value: Vec<u8>,
        /// In seconds of Unix time.
        needed_until_s: u64,
    },
    /// It was not made.
    Abandon,
    /// It is about to be removed from the token.
    Destroy,
}

/// What became of a [`KeyMove`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMoved {
    /// It is done.
    Done,
    /// The key is not in a state for this; `None` if it is not recorded.
    Impossible(Option<KeyState>),
    /// So many records still depend on it.
    HoldsRecords(u64),
    /// Something may need it until then, in seconds of Unix time.
    NeededUntil(u64),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn key()(
            state in 0_u8..4,
            times: (u64, Option<u64>, Option<u64>),
            counts: (u64, u64, u64),
            check_value in prop::collection::vec(any::<u8>(), 0..80),
        ) -> StoredKey {
            StoredKey {
                state: KeyState::from_code(state).unwrap(),
                created_at_ms: times.0,
                retired_at_ms: times.1.filter(|at| *at != 0),
                destroyed_at_ms: times.2.filter(|at| *at != 0),
                needed_until_s: counts.0,
                reserved_seals: counts.1,
                records: counts.2,
                check_value,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(key in key()) {
            prop_assert_eq!(StoredKey::decode(&key.encode()), Some(key));
        }

        #[test]
        fn other_bytes_fail_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(key) = StoredKey::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_life_goes_one_way() {
        const ALL: [KeyState; 4] =
            [KeyState::Pending, KeyState::Active, KeyState::Retired, KeyState::Destroyed];
        for (n, from) in ALL.into_iter().enumerate() {
            for (m, to) in ALL.into_iter().enumerate() {
                assert_eq!(from.may_become(to), m == n + 1, "{from:?} to {to:?}");
            }
        }
    }
}
