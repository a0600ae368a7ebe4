//! Who may reach what (design §10). Until policies are built it is one constant: members reach every port of members.
//!
//! Knows rules. Refuses to know how packets are filtered by them.
