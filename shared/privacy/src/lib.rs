//! Differential privacy: what a release costs, and how to keep under a budget.
//!
//! A release is an [`Event`]; a list of them is a [`accountant::Composition`], whose [`accountant::Account`] says what
//! epsilon it amounts to. Adjacency is add/remove of one privacy unit unless a name says replace-one.

pub mod accountant;
mod event;
mod units;

pub use event::Event;
pub use units::{Delta, Epsilon, Rate, Scale, Sigma, UnitError};
