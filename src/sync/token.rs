//! Sync tokens: a stream position, and how far typing was told.

use std::{fmt, str::FromStr};

use super::Error;
use crate::storage::Pos;

/// `s1_POSITION_TYPING_TODEVICE`, and `_STICKY` where not all was told. The same on every node, but for typing, which is told again at worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Everything up to this position was told.
    pub pos: Pos,
    /// Serial of the last typing change that was told.
    pub typing: i64,
    /// Messages to the device up to this position were told.
    pub to_device: Pos,
    /// Sticky events up to this position were told; `None`: as the rest.
    pub sticky: Option<Pos>,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s1_{}_{}_{}", self.pos, self.typing, self.to_device)?;
        match self.sticky {
            Some(sticky) => write!(f, "_{sticky}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.strip_prefix("s1_").ok_or(Error::BadToken)?.split('_');
        let number = |part: &str| part.parse::<i64>().ok().filter(|number| *number >= 0);
        let numbers: Option<Vec<i64>> = parts.map(number).collect();
        let (pos, typing, to_device, sticky) = match numbers.as_deref() {
            Some([pos, typing, to_device]) => (*pos, *typing, *to_device, None),
            Some([pos, typing, to_device, sticky]) => (*pos, *typing, *to_device, Some(*sticky)),
            _ => return Err(Error::BadToken),
        };
        Ok(Self {
            pos,
            typing,
            to_device,
            sticky,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Token;

    proptest! {
        #[test]
        fn tokens_round_trip(
            pos in 0..i64::MAX, typing in 0..i64::MAX, to_device in 0..i64::MAX,
            sticky in proptest::option::of(0..i64::MAX),
        ) {
            let token = Token { pos, typing, to_device, sticky };
            prop_assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        }

        #[test]
        fn nonsense_is_refused_without_panic(text in ".{0,40}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert!(token.pos >= 0);
            }
        }
    }

    #[test]
    fn broken_tokens_are_refused() {
        for text in [
            "",
            "s1_",
            "s1_1",
            "s1_1_0",
            "s1_-1_0_0",
            "s1_1_0_0_0_0",
            "s1_1_0_0_x",
            "t5",
            "s1_x_0_0",
            "s2_1_1_1",
        ] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }
}
