//! What a figure has to be (design, performance: the budget; and the issues).

use serde::Serialize;

/// The bound of a ratio.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

/// Whether a ratio meets its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Met {
    Yes,
    No,
    /// The goal was out of reach of this machine.
    CpuIsLimit,
}

impl Goal {
    /// Whether `ratio` meets it; NaN meets nothing.
    pub(crate) fn judge(self, ratio: f64) -> Met {
        let met = match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        };
        if met { Met::Yes } else { Met::No }
    }

    /// For the table.
    pub(crate) fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least:.2}"),
            Self::AtMost(most) => format!("≤ {most:.2}"),
        }
    }
}

impl Met {
    /// For the table.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "NO",
            Self::CpuIsLimit => "the CPU is the limit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_meets_the_goals_on_its_side() {
        for (goal, meets, misses) in [(Goal::AtLeast(0.3), 0.3, 0.29), (Goal::AtMost(3.0), 3.0, 3.01)] {
            assert_eq!(goal.judge(meets), Met::Yes);
            assert_eq!(goal.judge(misses), Met::No);
            assert_eq!(goal.judge(f64::NAN), Met::No);
        }
    }
}
