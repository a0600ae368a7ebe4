//! One port for several data threads: each has sockets of its own there, and the kernel gives a datagram to the thread
//! whose number it names (protocol §1: byte 7 of transport data). Everything else goes to the first.

use std::io;

use socket2::{Domain, Protocol, SockRef, Socket as Plain, Type};

use super::{Pair, Socket, set_option};

/// The first byte of transport data, and where it names a thread.
const TRANSPORT: u32 = 0x10;
const THREAD_AT: u32 = 7;

/// `SO_ATTACH_REUSEPORT_CBPF`, which `libc` does not name for Linux.
const ATTACH_PROGRAM: libc::c_int = 51;

impl Pair {
    /// Another pair at the same port. Sockets are numbered as they are made, this one's with 0.
    ///
    /// # Errors
    /// The kernel does not want it; nothing is bound then.
    pub fn beside(&self) -> io::Result<Self> {
        let udp6 = self.udp6.as_ref().map(Socket::beside).transpose()?;
        Ok(Self {
            udp4: self.udp4.beside()?,
            udp6,
        })
    }

    /// Has the kernel give transport data to the pair whose number it names, if there are so `many`, and everything else to
    /// the first. Said once all pairs are there.
    ///
    /// # Errors
    /// The kernel does not want it: it spreads them over all, as it pleases.
    pub fn steer(&self, many: u8) -> io::Result<()> {
        let both = [Some(&self.udp4), self.udp6.as_ref()];
        both.into_iter()
            .flatten()
            .try_for_each(|socket| socket.steer(many))
    }
}

impl Socket {
    fn beside(&self) -> io::Result<Self> {
        let first = SockRef::from(&self.fd);
        // Only now: who bound the port first was alone with it.
        first.set_reuse_port(true)?;
        let address = first.local_addr()?;
        let family = match address.is_ipv6() {
            true => Domain::IPV6,
            false => Domain::IPV4,
        };
        let plain = Plain::new(
            family,
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            plain.set_only_v6(true)?;
        }
        plain.set_reuse_port(true)?;
        plain.bind(&address)?;
        Self::around(plain.into(), family)
    }

    /// A classic BPF program sees what comes from the first byte behind the UDP header on, and its answer is the number of a
    /// socket. Where it reads behind the end of a datagram the answer is 0.
    fn steer(&self, many: u8) -> io::Result<()> {
        use libc::{BPF_A, BPF_ABS, BPF_B, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
        let load = |at| instruction(BPF_LD | BPF_B | BPF_ABS, [0, 0], at);
        let mut program = [
            load(0),
            instruction(BPF_JMP | BPF_JEQ | BPF_K, [0, 2], TRANSPORT),
            load(THREAD_AT),
            instruction(BPF_JMP | BPF_JGE | BPF_K, [0, 1], many.into()),
            instruction(BPF_RET | BPF_K, [0, 0], 0),
            instruction(BPF_RET | BPF_A, [0, 0], 0),
        ];
        let program = libc::sock_fprog {
            len: 6,
            filter: program.as_mut_ptr(),
        };
        set_option(&self.fd, (libc::SOL_SOCKET, ATTACH_PROGRAM), program)
    }
}

/// One instruction; `skip`: how many are left out where a comparison holds, and where it does not.
fn instruction(code: u32, skip: [u8; 2], k: u32) -> libc::sock_filter {
    let [jt, jf] = skip;
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    }
}
