//! What a data set came to as tokens.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Counts of an encoded data set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EncodeReport {
    /// Rows that were read.
    pub rows: usize,
    /// Examples that were made of them.
    pub examples: usize,
    /// Tokens of all examples.
    pub tokens: usize,
    /// Tokens that are learned.
    pub learned_tokens: usize,
    /// Rows that were cut.
    pub truncated: usize,
    /// Tokens of the longest row, before the cut.
    pub longest: usize,
    /// Rows that were left out, by the reason.
    pub dropped: BTreeMap<String, usize>,
    /// Examples that equal an earlier one.
    pub duplicates: usize,
    /// Examples that end without a token that ends generation, so that the model does not learn to stop there.
    pub without_end: usize,
    /// How long the rows were before the cut.
    pub lengths: Lengths,
}

/// How many rows have how many tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lengths {
    /// The least length that is counted in each bucket: 0, then powers of two from 16 on.
    pub from: Vec<usize>,
    /// Rows in each.
    pub rows: Vec<usize>,
    /// The length that half of the rows do not reach.
    pub median: usize,
    /// The length that one row in 20 exceeds.
    pub p95: usize,
}

impl Lengths {
    /// Counts lengths.
    pub(crate) fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let Some(longest) = lengths.last() else {
            return Self::default();
        };
        let mut from = vec![0];
        let mut next = 16;
        while next <= *longest {
            from.push(next);
            next *= 2;
        }
        let mut rows = vec![0; from.len()];
        for length in &lengths {
            let bucket = from.partition_point(|least| least <= length) - 1;
            rows[bucket] += 1;
        }
        let at = |part: usize| lengths[(lengths.len() * part / 100).min(lengths.len() - 1)];
        Self {
            median: at(50),
            p95: at(95),
            from,
            rows,
        }
    }

    /// One line for each bucket, with a bar.
    fn lines(&self) -> Vec<String> {
        let most = self.rows.iter().copied().max().unwrap_or(0).max(1);
        let each = self.from.iter().zip(&self.rows).enumerate();
        each.map(|(index, (from, rows))| {
            let until = match self.from.get(index + 1) {
                Some(next) => format!("{from}-{}", next - 1),
                None => format!("{from}-"),
            };
            let bar = "#".repeat((rows * 40).div_ceil(most));
            format!("  {until:>13} {rows:>9} {bar}")
                .trim_end()
                .to_string()
        })
        .collect()
    }
}

impl EncodeReport {
    /// The learned share of all tokens.
    pub fn learned_share(&self) -> f64 {
        self.learned_tokens as f64 / self.tokens.max(1) as f64
    }

    /// The whole report, a fact a line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("rows        {}", self.rows),
            format!("tokens      {}", self.tokens),
            format!(
                "learned     {} ({:.1} %)",
                self.learned_tokens,
                100.0 * self.learned_share()
            ),
            format!(
                "lengths     median {}, 95 % within {}, longest {}",
                self.lengths.median, self.lengths.p95, self.longest
            ),
        ];
        lines.extend(self.lengths.lines());
        if self.examples + self.dropped.values().sum::<usize>() != self.rows {
            lines.push(format!("examples    {}", self.examples));
        }
        lines.push(format!("cut         {}", self.truncated));
        let reasons = self.dropped.iter();
        lines.extend(reasons.map(|(reason, rows)| format!("dropped     {rows}: {reason}")));
        lines.push(format!("duplicates  {}", self.duplicates));
        if self.without_end > 0 {
            lines.push(format!(
                "no end      {} examples do not teach the model to stop",
                self.without_end
            ));
        }
        lines
    }
}

impl fmt::Display for EncodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows, {} tokens of which {} are learned, longest row {}",
            self.rows, self.tokens, self.learned_tokens, self.longest
        )?;
        if self.truncated > 0 {
            write!(f, ", {} rows cut", self.truncated)?;
        }
        let dropped: usize = self.dropped.values().sum();
        if dropped > 0 {
            write!(f, ", {dropped} rows dropped")?;
        }
        match self.duplicates {
            0 => Ok(()),
            duplicates => write!(f, ", {duplicates} duplicates"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_by_powers_of_two() {
        let lengths = Lengths::of(vec![1, 15, 16, 31, 32, 100]);
        assert_eq!(lengths.from, [0, 16, 32, 64]);
        assert_eq!(lengths.rows, [2, 2, 1, 1]);
        assert_eq!((lengths.median, lengths.p95), (31, 100));
        assert_eq!(
            lengths.lines()[2..],
            [
                format!("  {:>13} {:>9} {}", "32-63", 1, "#".repeat(20)),
                format!("  {:>13} {:>9} {}", "64-", 1, "#".repeat(20)),
            ]
        );
    }

    #[test]
    fn the_report_tells_every_fact() {
        let report = EncodeReport {
            rows: 5,
            examples: 4,
            tokens: 40,
            learned_tokens: 10,
            truncated: 1,
            longest: 20,
            dropped: [("no token left".to_string(), 1)].into(),
            duplicates: 2,
            without_end: 3,
            lengths: Lengths::of(vec![8, 20]),
        };
        let text = report.lines().join("\n");
        for part in [
            "learned     10 (25.0 %)",
            "longest 20",
            "cut         1",
            "dropped     1: no token left",
            "duplicates  2",
            "no end      3",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            report.to_string(),
            "5 rows, 40 tokens of which 10 are learned, longest row 20, 1 rows cut, 1 rows dropped, 2 duplicates"
        );
    }
}
