//! The record store: what is held in each slot, what competes with it, how long it lives (protocol §7).
//!
//! Knows envelopes, leases, quotas and digests. Refuses to know who is an admin: every record comes with its verdict.
