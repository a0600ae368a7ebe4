//! Who belongs: certificates in force, admins, revocations, epochs, redeeming, names and IPv4, mesh time (protocol §7–§10).
//!
//! Knows what records of membership say and who may say it. Refuses to know how records travel and where they are kept.
