//! Webmesh: private networks between machines anywhere, without any server.
//!
//! Every machine runs one agent. It owns a TUN device and one UDP port. Programs use ordinary sockets and ordinary names;
//! they never know that Webmesh exists. What a network is (who belongs to it, what they serve, where they are) is a set of
//! small signed records that every peer holds and passes on; nobody has to be asked. Packets travel between two peers in
//! a WireGuard session of their own, and most of them by a transport whose keys the two made in it.
//!
//! Two threads do it. The *data thread* ([`datapath`]) moves packets and knows neither names nor records. The *control
//! thread* ([`daemon`]) owns the [`node::Node`], which knows everything and touches nothing: it is told what happened as
//! [`node::input::Input`] and says what to do as [`node::output::Output`]. The two threads talk by
//! [`datapath::command::Command`] and [`datapath::command::Event`], and share one snapshot of [`tables::Tables`].
//!
//! # The rooms, in reading order
//!
//! The ground, which every room may use:
//!
//! - [`addr`]: the two address spaces, and how the inner one follows from keys.
//! - [`ids`]: who and what things are, in types that cannot be mistaken for each other.
//! - [`hash`]: the one hash of the protocol, with its list of uses.
//! - [`time`]: two clocks, never confused, and the table of deadlines.
//!
//! Bytes and keys:
//!
//! - [`packet`]: IP, TCP, UDP and ICMP bytes.
//! - [`wire`]: every byte we put on a network, and back.
//! - [`keys`]: node, root and tunnel keys, secrets, tokens and recovery codes.
//! - [`tables`]: what the data thread reads.
//!
//! The cores. None knows another; each is told what it must know and says what should happen:
//!
//! - [`members`]: who belongs, and who may say what.
//! - [`registry`]: the records that are held.
//! - [`gossip`]: how records spread.
//! - [`overlay`]: with whom this peer gossips.
//! - [`paths`]: how a peer is reached, and the proof of an address.
//! - [`relay`]: ways through a third peer.
//! - [`transport`]: keys for bulk data, and sealing by them.
//! - [`rendezvous`]: how two peers find each other that nobody else can bring together.
//! - [`services`]: what this peer publishes.
//! - [`policy`]: who may reach what.
//! - [`dns`]: names in, answers out.
//! - [`node`]: the cores joined, one file per story.
//!
//! The world:
//!
//! - [`platform`]: the operating system, and all of `unsafe`.
//! - [`wireguard`]: sessions; one file names boringtun.
//! - [`datapath`]: the hot loop.
//! - [`config`]: the file a person writes.
//! - [`telemetry`]: logs and counters.
//! - [`api`]: the contract of the agent's socket.
//! - [`host_dns`]: what root does so that the host's own resolver sends us our names.
//! - [`daemon`]: the agent: carries out what the node says, keeps the state directory, answers the API.
//! - [`cli`]: what a person types and sees.
//! - [`demo`]: three machines and two home routers in namespaces of one process.
//!
//! # The life of a packet, out
//!
//! 1. A program sends to an address of the mesh; the kernel routes it into the TUN, where the data thread reads it.
//! 2. Its source must be an own address ([`tables::Own`]): whatever else a program wrote is dropped and counted, so that
//!    nothing on this host can forge a control frame ([`wire::frame`]).
//! 3. A packet for the resolver's address is answered at once by [`tables::Names`], out of the zone that the node made.
//! 4. [`tables::Tables::peers4`] and [`tables::Tables::peers6`] say which peer it goes to.
//! 5. A session stands: the packet is sealed, in its [`transport`] once both ends have keys, and sent where the session's path
//!    leads. One that the kernel left longer than the link is cut first ([`packet::split`]), and datagrams of one length go
//!    out as one train ([`platform::udp`]).
//! 6. None stands: the packet waits in a short queue of ours, and [`datapath::command::Event::Wanted`] tells the control
//!    thread. The node finds the peer's addresses and says [`node::output::Output::Dial`]: a Knock
//!    ([`wire::sealed::Knock`]) and a WireGuard initiation go to each. When the session stands the queue is sent; when
//!    no way is found it is answered by ICMP ([`node::output::Output::Unreachable`]).
//!
//! # The life of a packet, in
//!
//! 1. The first bytes of a datagram say what it is ([`wire::datagram`]); nothing else is looked at.
//! 2. Sealed datagrams go to the control thread unopened ([`datapath::command::Event::Sealed`]). One that does not open with
//!    a key of [`node::Node::sealed_keys`] is never answered: strangers get silence. For a good Knock or Join the node says
//!    [`node::output::Output::Admit`], and only then does its initiation reach WireGuard.
//! 3. Data is opened by the session, or the transport, that its index names.
//! 4. A control frame becomes a [`wire::message::Message`] for the node. It cannot be an IP packet, nor the other way
//!    round: the two are told apart by bytes that no host can emit.
//! 5. An IP packet must come from an address of the peer that sealed it and go to one of ours; then it is written into the
//!    TUN, as one with those that it continues ([`packet::join`]). Where the port belongs to a spliced service ([`tables::Tables::splices`]) it is rewritten to the listener that
//!    carries it on to a program on 127.0.0.1.
//!
//! # The life of a record
//!
//! 1. A peer signs a [`wire::record::Draft`] with its key: its addresses, its lease, a service. Certificates are signed by
//!    admins, admins by the root.
//! 2. It travels whole, as bytes, in [`wire::message::Records`], after an [`wire::message::Advert`] said that it exists and
//!    a [`wire::message::Want`] asked for it. Revocations are not asked for: they are flooded.
//! 3. At the receiver its signature is checked and [`members`] judges whether the signer may say this; only then does it
//!    compete for its [`ids::Slot`] in the [`registry`], where the newest wins.
//! 4. What wins is written down ([`node::output::Write::Record`]), told to the cores that it concerns, and advertised to
//!    the other links.
//! 5. The node makes new [`tables::Tables`] of it: a name resolves, an address has a peer.
//! 6. It ends with its peer's lease, with its certificate, or by a newer one. What two peers missed they find by comparing
//!    digests ([`wire::message::Digest`]), however long they were apart.
//!
//! # The life of a command
//!
//! 1. [`cli`] reads what a person typed into a request of [`api`] and sends it over the unix socket.
//! 2. [`daemon`] asks the kernel who is at the other end, and refuses what this user may not do.
//! 3. What changes the network is a method of [`node::Node`] ([`node::Node::invite`] and its like); what looks reads a
//!    snapshot.
//! 4. The outputs are carried out in their order: what must survive is on the disk before anything that depends on it is
//!    said ([`node::output::Output::Persist`]).
//! 5. The answer is a value; [`cli`] makes words or JSON of it. An error says what could not be done and what to do next;
//!    the agent writes that sentence, since only it knows.
//!
//! # What is not there
//!
//! These absences hold the house up; `tests/tidy.rs` and the lints keep them.
//!
//! - No core reads a clock, opens a socket, waits, or draws randomness. The same seed and the same inputs give the same
//!   outputs: `tests/sim` runs whole networks in one process by it.
//! - No core imports another. Where two must agree, [`node`] carries the word.
//! - No packet of a program ever reaches the node, and no record ever reaches the data thread.
//! - No lock, no allocation of ours and no await stands in the way of a packet.
//! - No room but [`platform`] holds `unsafe`, and no file but one names boringtun.
//! - The agent leaves nothing behind: its device, addresses, routes and guard ([`platform::guard`]) die with the process.
//!   Under a service manager they wait for the next run where it keeps them, and die with the service.
//! - No host name and no address of anybody is written in these sources.

pub mod addr;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod demo;
pub mod dns;
pub mod gossip;
pub mod hash;
pub mod host_dns;
pub mod ids;
pub mod keys;
pub mod members;
pub mod node;
pub mod overlay;
pub mod packet;
pub mod paths;
pub mod platform;
pub mod policy;
pub mod registry;
pub mod relay;
pub mod rendezvous;
pub mod services;
pub mod tables;
pub mod telemetry;
pub mod time;
pub mod transport;
pub mod wire;
pub mod wireguard;
