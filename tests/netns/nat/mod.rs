//! The NAT laboratory: an internet that routes, and machines behind every kind of middlebox that people have; and the
//! tests of issue 5 in it.
//!
//! | file | |
//! |---|---|
//! | `kind` | the kinds, and what theory allows between two of them |
//! | `rules` | one router's NAT and filter, as text for `nft` |
//! | `internet` | the internet, homes and carriers, and who is plugged in where |
//! | `weather` | what happens to them: reboots, new addresses, cuts, loss, narrow links |
//! | `probe` | a UDP socket in a machine, driven by the test |
//! | `checks` | the lab judged by itself, without agents: a bug of the lab must not be taken for ours |
//! | `pair`, `flow` | two machines that joined a network, and a watched stream between them |
//! | `matrix` | every kind with every kind |
//! | `meeting` | two homes, the DHT, and nobody else |
//! | `inviting` | joining through a member |
//! | `neighbours` | two behind the same router or carrier |
//! | `moving` | paths that break, move and become narrow under traffic |
//! | `idling` | silence, and what comes after it |
//! | `rough` | loss and narrow links |
//! | `explaining` | what `why` says in some of these places |
//! | `mischief` | who holds packets back, who scans |

mod flow;
pub(crate) mod internet;
pub(crate) mod kind;
mod pair;
pub(crate) mod probe;
mod rules;
pub(crate) mod weather;

mod checks;
mod explaining;
mod idling;
mod inviting;
mod matrix;
mod meeting;
mod mischief;
mod moving;
mod neighbours;
mod rough;
