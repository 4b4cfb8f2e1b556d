//! What a ratio has to be.

use serde::Serialize;

/// The bounds of a ratio (design, performance: the budget; and the issues).
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Goal {
    /// More is better.
    AtLeast {
        /// What is good enough for the time being.
        now: f64,
        /// What is wanted in the end.
        last: f64,
        /// Whether this run may claim the last one.
        claims_last: bool,
    },
    /// Less is better, and this is the most.
    AtMost {
        /// The ratio.
        most: f64,
    },
}

/// Which goal a ratio meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Met {
    Final,
    Now,
    No,
    /// The goal was out of reach of this machine.
    CpuIsLimit,
}

impl Goal {
    /// What `ratio` meets; NaN meets nothing.
    pub(crate) fn judge(self, ratio: f64) -> Met {
        match self {
            Self::AtLeast { last, claims_last: true, .. } if ratio >= last => Met::Final,
            Self::AtLeast { now, .. } if ratio >= now => Met::Now,
            Self::AtMost { most } if ratio <= most => Met::Final,
            Self::AtLeast { .. } | Self::AtMost { .. } => Met::No,
        }
    }

    /// For the table.
    pub(crate) fn text(self) -> String {
        match self {
            Self::AtLeast { now, last, claims_last } => {
                let condition = if claims_last { "" } else { " with --records 1000000" };
                format!("{now:.2} now, {last:.2} final{condition}")
            }
            Self::AtMost { most } => format!("at most {most:.0}"),
        }
    }
}

impl Met {
    /// For the table.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Final => "yes, final",
            Self::Now => "yes, now",
            Self::No => "NO",
            Self::CpuIsLimit => "the CPU is the limit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_meets_the_goals_below_it() {
        let goal = Goal::AtLeast { now: 0.3, last: 0.45, claims_last: true };
        assert_eq!(goal.judge(0.29), Met::No);
        assert_eq!(goal.judge(0.3), Met::Now);
        assert_eq!(goal.judge(0.45), Met::Final);
        assert_eq!(Goal::AtLeast { now: 0.3, last: 0.45, claims_last: false }.judge(0.9), Met::Now);
        assert_eq!(goal.judge(f64::NAN), Met::No);
    }

    #[test]
    fn a_ratio_meets_the_goal_above_it() {
        let goal = Goal::AtMost { most: 3.0 };
        assert_eq!(goal.judge(3.0), Met::Final);
        assert_eq!(goal.judge(3.01), Met::No);
        assert_eq!(goal.judge(f64::NAN), Met::No);
    }
}
