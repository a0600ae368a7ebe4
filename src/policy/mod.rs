//! Who may reach what. Until policies are built: one constant, `members → members: everything` (design §10).
