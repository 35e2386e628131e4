use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How long the learning rate rises: a number of steps, or a share of all steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Warmup {
    /// This many steps.
    Steps(usize),
    /// This share of all steps, rounded up, in `[0, 1)`.
    Ratio(f64),
}

impl Warmup {
    /// The number of steps of a run of `total` steps.
    pub fn steps(self, total: usize) -> usize {
        match self {
            Self::Steps(steps) => steps,
            Self::Ratio(ratio) => (ratio * total as f64).ceil() as usize,
        }
    }
}

impl FromStr for Warmup {
    type Err = String;

    /// `20` is a number of steps, `0.05` a share.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let steps = text.parse().map(Self::Steps);
        steps
            .or_else(|_| text.parse().map(Self::Ratio))
            .map_err(|_| {
                format!("\"{text}\" is neither a number of steps nor a share such as 0.05")
            })
    }
}

impl fmt::Display for Warmup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Ratio(ratio) => write!(f, "{ratio:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_is_steps_or_a_share() {
        assert_eq!("20".parse(), Ok(Warmup::Steps(20)));
        assert_eq!("0.05".parse(), Ok(Warmup::Ratio(0.05)));
        assert!("soon".parse::<Warmup>().is_err());
        assert_eq!(Warmup::Ratio(0.05).steps(210), 11);
        assert_eq!(Warmup::Ratio(0.0).to_string(), "0.0");
    }
}
