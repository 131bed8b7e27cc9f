//! What several runs gave.

use std::fmt::Write as _;

/// One number of each run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// 0 of nothing; of an even number the mean of both in the middle.
    pub(crate) fn median(&self) -> f64 {
        let at = |n: usize| self.0.get(n).copied().unwrap_or_default();
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => 0.0,
            n if n % 2 == 1 => at(middle),
            _ => f64::midpoint(at(middle - 1), at(middle)),
        }
    }

    /// The median, and in parentheses the least and the most.
    pub(crate) fn told(&self, digits: usize, unit: &str) -> String {
        let mut text = format!("{:.digits$} {unit}", self.median());
        if let (Some(least), Some(most), 2..) = (self.0.first(), self.0.last(), self.0.len()) {
            let _ = write!(text, " ({least:.digits$}–{most:.digits$})");
        }
        text
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut samples = Self::default();
        values.into_iter().for_each(|value| samples.push(value));
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_what_is_told() {
        let samples: Samples = [3.0, 1.0, 9.0].into_iter().collect();
        assert_eq!(samples.median(), 3.0);
        assert_eq!(samples.told(1, "us"), "3.0 us (1.0–9.0)");
        let samples: Samples = [1.0, 2.0].into_iter().collect();
        assert_eq!(samples.median(), 1.5);
        assert_eq!(Samples::default().median(), 0.0);
    }
}
