//! Differential privacy: what a release costs, and how to keep under a budget.
//!
//! A release is an [`Event`]; a list of them is a [`accountant::Composition`], whose [`accountant::Account`] says what
//! epsilon it amounts to. Adjacency is add/remove of one privacy unit unless a name says replace-one.
//!
//! The [`ledger`] charges events before anything is drawn and issues tokens; `mechanism` (a feature of this crate) and [`dpsgd`]
//! draw noise for a token and for nothing else; [`audit`] checks what they did.

pub mod accountant;
pub mod audit;
pub mod dpsgd;
mod event;
pub mod ledger;
#[cfg(feature = "mechanism")]
pub mod mechanism;
mod units;

pub use event::Event;
pub use units::{Delta, Epsilon, Rate, Scale, Sigma, UnitError};
