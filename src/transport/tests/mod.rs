//! The room as the data thread uses it.

mod allocating;
mod exchanging;
mod limiting;
mod losing;
mod world;
