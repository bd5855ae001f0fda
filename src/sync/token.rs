//! Sync tokens: a stream position, and how far typing was told.

use std::{fmt, str::FromStr};

use super::Error;
use crate::storage::Pos;

/// `s1_POSITION_TYPING_TODEVICE`, and `_STICKY`, `_dDEVICES` where not all was told. The same on every node, but for typing, which is told again at worst.
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
    /// Changes of devices up to this position were told; `None`: as the rest.
    pub devices: Option<Pos>,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s1_{}_{}_{}", self.pos, self.typing, self.to_device)?;
        if let Some(sticky) = self.sticky {
            write!(f, "_{sticky}")?;
        }
        match self.devices {
            Some(devices) => write!(f, "_d{devices}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.strip_prefix("s1_").ok_or(Error::BadToken)?;
        let number = |part: &str| part.parse::<i64>().ok().filter(|number| *number >= 0);
        let (text, devices) = match text.split_once("_d") {
            Some((text, devices)) => (text, Some(number(devices).ok_or(Error::BadToken)?)),
            None => (text, None),
        };
        let parts = text.split('_');
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
            devices,
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
            devices in proptest::option::of(0..i64::MAX),
        ) {
            let token = Token { pos, typing, to_device, sticky, devices };
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
            "s1_1_0_0_d",
            "s1_1_0_0_d1_d1",
            "s1_1_0_d0",
            "t5",
            "s1_x_0_0",
            "s2_1_1_1",
        ] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }
}
