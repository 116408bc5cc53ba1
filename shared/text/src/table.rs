//! Figures for result tables: means with intervals, Markdown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{TextError, all_finite, same_length};

/// Mean and 95 % confidence interval of a figure over a few seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the interval, by Student's t with `n - 1` degrees of freedom: the true mean of normal values is
    /// within `mean ± half_width` 19 times out of 20. Nothing for one value, which shows no spread.
    pub half_width: Option<f64>,
}

impl Summary {
    /// Summarises values. Errors: none given, one that is not finite.
    pub fn of(values: &[f64]) -> Result<Self, TextError> {
        let n = values.len();
        if n == 0 {
            return Err(TextError::setting("values", "there are none to take a mean of"));
        }
        all_finite("value", values)?;
        let mean = values.iter().sum::<f64>() / n as f64;
        let half_width = (n > 1).then(|| {
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            student_95(n - 1) * (variance / n as f64).sqrt()
        });
        Ok(Self { n, mean, half_width })
    }
}

/// `0.812 ± 0.013`, with as many decimals as the formatter asks for (3 without).
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(3);
        write!(f, "{:.decimals$}", self.mean)?;
        match self.half_width {
            Some(half_width) => write!(f, " ± {half_width:.decimals$}"),
            None => write!(f, " (one value)"),
        }
    }
}

/// The 97.5 % point of Student's t. Tabulated up to 10 degrees of freedom; above by the expansion in the normal point
/// (Abramowitz and Stegun 26.7.5), which is then right to 1e-4.
fn student_95(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [
        12.706204736,
        4.302652730,
        3.182446305,
        2.776445105,
        2.570581836,
        2.446911851,
        2.364624252,
        2.306004135,
        2.262157163,
        2.228138852,
    ];
    if let Some(&t) = freedom.checked_sub(1).and_then(|at| TABLE.get(at)) {
        return t;
    }
    let (z, n) = (1.959963984540054_f64, freedom as f64);
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
        (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5) - 1920.0 * z.powi(3) - 945.0 * z)
            / 92160.0,
    ];
    terms.iter().rev().fold(0.0, |sum, term| (sum + term) / n) + z
}

/// A Markdown table. [`fmt::Display`] writes it with its columns aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markdown {
    rows: Vec<Vec<String>>,
}

impl Markdown {
    /// A table with these column heads, at least one.
    pub fn new<S: Into<String>>(heads: impl IntoIterator<Item = S>) -> Result<Self, TextError> {
        let heads: Vec<_> = heads.into_iter().map(cell).collect();
        if heads.is_empty() {
            return Err(TextError::setting("columns", "a table needs at least one"));
        }
        Ok(Self { rows: vec![heads] })
    }

    /// Adds a row, a cell a column. Errors: another number of cells than columns.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> Result<(), TextError> {
        let cells: Vec<_> = cells.into_iter().map(cell).collect();
        same_length("cells of a row", self.rows[0].len(), cells.len())?;
        self.rows.push(cells);
        Ok(())
    }
}

/// Text that cannot break the table: one line, bars escaped.
fn cell(text: impl Into<String>) -> String {
    crate::words::single_line(&text.into()).replace('\\', "\\\\").replace('|', "\\|")
}

impl fmt::Display for Markdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<_> = (0..self.rows[0].len()).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (cell, &width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                widths.iter().try_for_each(|&width| write!(f, "|-{:-<width$}-", ""))?;
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mass of Student's t within `±t`, by Simpson's rule on the density scaled to its own whole mass:
    /// `x = tan(a) sqrt(n)` makes it `cos(a)^(n - 1)` over a quarter turn.
    fn mass_within(t: f64, freedom: usize) -> f64 {
        let n = freedom as f64;
        let integral = |to: f64| {
            let steps = 4000;
            let h = to / f64::from(steps);
            let f = |i: i32| (f64::from(i) * h).cos().max(0.0).powf(n - 1.0);
            (0..steps / 2).map(|i| f(2 * i) + 4.0 * f(2 * i + 1) + f(2 * i + 2)).sum::<f64>() * h / 3.0
        };
        integral((t / n.sqrt()).atan()) / integral(std::f64::consts::FRAC_PI_2)
    }

    #[test]
    fn the_points_of_student_hold_95_percent() {
        for freedom in (1..=60).chain([100, 1000]) {
            let mass = mass_within(student_95(freedom), freedom);
            assert!((mass - 0.95).abs() < 1e-5, "{freedom}: {mass}");
        }
    }

    #[test]
    fn the_interval_of_three_seeds() {
        // Mean 2, deviation 1, t(2) = 4.302653: 4.302653 / sqrt(3).
        let summary = Summary::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(summary.mean, 2.0);
        assert!((summary.half_width.unwrap() - 2.484138).abs() < 1e-6);
        assert_eq!(summary.to_string(), "2.000 ± 2.484");
        assert_eq!(format!("{summary:.1}"), "2.0 ± 2.5");
    }

    #[test]
    fn one_value_has_no_interval_and_none_no_mean() {
        assert_eq!(Summary::of(&[0.5]).unwrap().to_string(), "0.500 (one value)");
        assert!(Summary::of(&[]).is_err());
        assert!(matches!(Summary::of(&[1.0, f64::NAN]), Err(TextError::NotFinite { index: 1, .. })));
    }

    #[test]
    fn tables_keep_their_columns_whatever_the_cells_say() {
        let mut table = Markdown::new(["name", "F1"]).unwrap();
        table.row(["a|b\nc", "0.5"]).unwrap();
        assert!(table.row(["one"]).is_err());
        assert_eq!(table.to_string(), "| name   | F1  |\n|--------|-----|\n| a\\|b c | 0.5 |\n");
        assert!(Markdown::new(Vec::<String>::new()).is_err());
    }
}
