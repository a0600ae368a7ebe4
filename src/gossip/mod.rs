//! How records spread: advert, pull, digest, urgent flood, budgets (protocol §7).
//!
//! Knows slots and versions. Refuses to know what a record says; reads the store through a trait.
