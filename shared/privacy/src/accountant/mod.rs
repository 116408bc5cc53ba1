//! Accountants: from the events of a data set to (epsilon, delta), and back.
//!
//! | module | what |
//! |---|---|
//! | [`rdp`] | Rényi divergences at fixed orders: quick, composes by adding, the currency of [`filter`] |
//! | [`pld`] | the distribution of the privacy loss, by FFT: tight; upper and lower estimate |
//! | [`compose`] | a list of events and its account: all epsilons side by side |
//! | [`calibrate`] | the noise that an (epsilon, delta) asks for |
//! | [`filter`] | stop before a cap, and read what was spent, when the next event depends on earlier results |

pub mod calibrate;
pub mod compose;
mod error;
pub mod filter;
mod fits;
mod normal;
pub mod pld;
pub mod rdp;

pub use calibrate::{Calibrated, Calibration, Noise};
pub use compose::{Account, Composition};
pub use error::AccountError;
pub use filter::{Filter, Odometer};
pub use fits::Fits;
pub use pld::{Adjacency, Estimate, Pld};
pub use rdp::RdpCurve;
