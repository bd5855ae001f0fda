//! Where the next page of a search begins.

use std::{fmt, str::FromStr};

use crate::storage::{RoomNid, UserNid, search::Hit};

/// The last event of a page, and what the search is narrowed down to. Whoever makes one up sees no
/// more than they may: it is a place in their own results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    last: Hit,
    room: Option<i64>,
    sender: Option<i64>,
}

impl Token {
    pub(super) const fn new(last: Hit) -> Self {
        Self {
            last,
            room: None,
            sender: None,
        }
    }

    pub(super) const fn of_room(mut self, room: RoomNid) -> Self {
        self.room = Some(room.0);
        self
    }

    pub(super) const fn of_sender(mut self, sender: UserNid) -> Self {
        self.sender = Some(sender.0);
        self
    }

    /// The same search further on.
    pub(super) const fn at(mut self, last: Hit) -> Self {
        self.last = last;
        self
    }

    pub(super) const fn hit(&self) -> Hit {
        self.last
    }

    pub(super) const fn room(&self) -> Option<i64> {
        self.room
    }

    pub(super) const fn sender(&self) -> Option<i64> {
        self.sender
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hit {
            rank,
            ts,
            seq,
            event,
            ..
        } = self.last;
        write!(f, "f1_{:x}_{ts}_{seq}_{event}", rank.to_bits())?;
        if let Some(room) = self.room {
            write!(f, "_r{room}")?;
        }
        if let Some(sender) = self.sender {
            write!(f, "_u{sender}")?;
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_prefix("f1_").ok_or(())?.split('_');
        let rank = u32::from_str_radix(parts.next().ok_or(())?, 16).map_err(|_| ())?;
        let rank = f32::from_bits(rank);
        if rank.is_nan() {
            return Err(());
        }
        let mut number = || parts.next().ok_or(())?.parse::<i64>().map_err(|_| ());
        let (ts, seq, event) = (number()?, number()?, number()?);
        let mut token = Self::new(Hit {
            rank,
            ts,
            seq,
            event,
            room: RoomNid(0),
            sender: UserNid(0),
        });
        for part in parts {
            let (kind, number) = part.split_at_checked(1).ok_or(())?;
            let number = number.parse().map_err(|_| ())?;
            match kind {
                "r" => token.room = Some(number),
                "u" => token.sender = Some(number),
                _ => return Err(()),
            }
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::{Hit, RoomNid, Token, UserNid};

    #[test]
    fn a_token_is_what_it_was() {
        let hit = Hit {
            rank: 0.062_5,
            ts: 1_700_000_000_000,
            seq: -7,
            event: 12,
            room: RoomNid(3),
            sender: UserNid(4),
        };
        let token = Token::new(hit).of_room(hit.room).to_string();
        let read: Token = token.parse().unwrap();
        assert_eq!(read.to_string(), token);
        assert_eq!((read.room(), read.sender()), (Some(3), None));
        for bad in [
            "",
            "f1_",
            "f1_zz_1_2_3",
            "f1_7fc00000_1_2_3",
            "f1_0_1_2",
            "f1_0_1_2_3_",
            "f1_0_1_2_3_ü1",
        ] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }
}
