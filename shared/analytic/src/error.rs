use thiserror::Error;

/// Why an analytic step refused its input. Nothing is changed where an error is returned.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum AnalyticError {
    /// A field of a feature specification or a shape is outside what the arithmetic can hold exactly.
    #[error("{field} is not usable: {reason}")]
    Spec {
        /// The field, by its name in the plan.
        field: &'static str,
        /// What is wrong and which values are allowed.
        reason: String,
    },
    /// A buffer does not have the length its shape asks for.
    #[error("{what} has {got} values where {expected} are needed; check rows and columns of what was passed")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Values needed.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// An input is NaN or infinite.
    #[error("row {row}, column {column} is {value}; clean or impute the record first")]
    NotFinite {
        /// Row within the call, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value as text, so that NaN compares equal.
        value: String,
    },
    /// An input without row normalisation is larger than the grid allows.
    #[error(
        "row {row}, column {column} is {value}, beyond +-{bound}; standardise the column or set normalize = \"l2\""
    )]
    OutOfBound {
        /// Row within the call, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value.
        value: f64,
        /// The largest magnitude allowed.
        bound: f64,
    },
    /// A quantised row is longer than the bound that privacy accounting relies on.
    #[error(
        "row {row} has an integer norm above 2^{bits}; its sensitivity bound would not hold, so it is refused"
    )]
    RowNorm {
        /// Row within the call, from 0.
        row: usize,
        /// Fractional bits of the grid.
        bits: u32,
    },
    /// A value given to the accumulator is not an integer within the bound of the shape.
    #[error(
        "row {row}, column {column} is {value}, not an integer within +-{max_abs}; quantise rows with the run's Featurizer"
    )]
    NotQuantised {
        /// Row within the call, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value as text, so that NaN compares equal.
        value: String,
        /// Largest magnitude of the grid.
        max_abs: i64,
    },
    /// A label is not one of the classes.
    #[error("row {row} has label {label}, but there are {classes} classes (0 to {}); check the label mapping", classes - 1)]
    Label {
        /// Row within the call, from 0.
        row: usize,
        /// The label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// The rows would take the exact sums beyond 62 bits.
    #[error(
        "{rows} rows exceed the {limit} that 64-bit sums can hold at this grid; lower bits or split the run"
    )]
    TooManyRows {
        /// Rows there would be.
        rows: u64,
        /// Rows allowed.
        limit: u64,
    },
    /// Two sums, or sums and a plan, disagree on their shape.
    #[error("{what} is {got} where {expected} is expected; both sides must follow the same run plan")]
    Shape {
        /// The quantity that differs.
        what: &'static str,
        /// Expected value.
        expected: u64,
        /// Found value.
        got: u64,
    },
    /// A 64-bit sum would overflow.
    #[error("{what} overflows 64 bits; one of the two sums is not what it claims to be, validate both")]
    Overflow {
        /// The part that overflows.
        what: &'static str,
    },
    /// Sums were subtracted from a total that does not contain them.
    #[error(
        "{what} to subtract is larger than the total holds; these sums were never added, or were already withdrawn"
    )]
    NotContained {
        /// The part that would become negative.
        what: &'static str,
    },
    /// Sums without a single row.
    #[error("the sums hold no rows; a site without records must decline instead of sending sums")]
    NoRows,
    /// Class counts and rows disagree.
    #[error("class counts add up to {counted}, but {rows} rows are claimed; refuse this upload")]
    Counts {
        /// Sum over classes.
        counted: u128,
        /// Claimed rows.
        rows: u64,
    },
    /// A diagonal element of the Gram matrix is impossible.
    #[error(
        "gram[{index},{index}] = {value} is outside 0 to {limit}; no such rows exist, refuse this upload"
    )]
    Diagonal {
        /// Row and column.
        index: usize,
        /// The value.
        value: i64,
        /// Largest possible value.
        limit: i64,
    },
    /// An off-diagonal element breaks the Cauchy-Schwarz inequality.
    #[error(
        "gram[{row},{column}] = {value} breaks g_ij^2 <= g_ii g_jj; no such rows exist, refuse this upload"
    )]
    OffDiagonal {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// The value.
        value: i64,
    },
    /// An element of `X'Y` is larger than the rows of its class allow.
    #[error(
        "cross[{row},{class}] = {value} is beyond +-{limit}, all that the rows of the class can give; refuse this upload"
    )]
    Cross {
        /// Feature.
        row: usize,
        /// Class.
        class: usize,
        /// The value.
        value: i64,
        /// Largest possible magnitude.
        limit: i64,
    },
    /// The bytes are not encoded sums of a known version.
    #[error("not encoded sums: {found}; the sender uses another format or version, update the older side")]
    Format {
        /// What was found instead.
        found: String,
    },
    /// The bytes end early.
    #[error("encoded sums end within {section}; the upload was cut, send it again")]
    Truncated {
        /// Where they end.
        section: &'static str,
    },
    /// There are bytes after the end.
    #[error("{extra} bytes follow the encoded sums; the upload is damaged or padded, send it again")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The ridge parameter is not a finite number at or above zero.
    #[error("{name} = {value} is not usable; give a finite number that is not negative")]
    Ridge {
        /// Name of the parameter.
        name: &'static str,
        /// The value as text, so that NaN compares equal.
        value: String,
    },
    /// The system has no unique stable solution.
    #[error(
        "G + lambda I is not positive definite at lambda = {lambda} (pivot {pivot}); try lambda = {suggested:e} or more"
    )]
    NotPositiveDefinite {
        /// Index of the pivot that failed.
        pivot: usize,
        /// Ridge parameter used.
        lambda: f64,
        /// A larger one likely to work.
        suggested: f64,
    },
    /// The pairwise law needs at least one update.
    #[error("no client update was given; wait for at least one site")]
    NoUpdates,
    /// A peer's matrix is not symmetric.
    #[error("corr[{row},{column}] and its mirror differ; the peer's matrix is not X'X + gamma I, refuse it")]
    NotSymmetric {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
    },
    /// A matrix of the pairwise law cannot be inverted.
    #[error("{what} is singular; with fewer rows than features every client needs gamma > 0")]
    Singular {
        /// Which matrix.
        what: &'static str,
    },
}
