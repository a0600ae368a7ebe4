//! The least a tunnel in user space can do: TUN → AEAD → UDP and back, as fast as one can make it, and nothing else.
//!
//! A yardstick: what the product reaches is divided by what this reaches. No peers, no handshake, no replay window, no
//! rekeying; **the key is written below, so it protects nothing**. Datagrams are as long as the product's. IPv4 inside
//! and outside; TCP is split and joined, UDP split. One thread, run to completion. It makes the TUN device, for others to
//! set up: `floor DEVICE OWN-ADDRESS:PORT OTHER-ADDRESS:PORT aes|chacha`.

use std::{
    fs::File,
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Result, Write},
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
};

use {inbound::Inbound, outbound::Outbound, sealing::*};

mod inbound;
mod internet;
mod outbound;
mod sealing;

/// The largest IP packet with the virtio header that the kernel puts before it, and some to spare.
const SUPER_PACKET: usize = 68 * 1024;

/// What packets come from and go to, and what seals them on the way.
struct Ends {
    tun: File,
    udp: UdpSocket,
    other: SocketAddr,
    key: LessSafeKey,
    index: u8,
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [device, own, other, cipher] = words.try_into().expect("four words");
    let other = other.parse().expect("the other's address");
    let udp = UdpSocket::bind(own)?;
    setsockopt(&udp, sockopt::SndBufForce, &(4 << 20))?;
    setsockopt(&udp, sockopt::RcvBufForce, &(16 << 20))?;
    setsockopt(&udp, sockopt::UdpGroSegment, &true)?;
    let algorithm = if cipher == "aes" { &AES } else { &CHACHA };
    let key = UnboundKey::new(algorithm, &[7; 32]).expect("32 bytes are a key");
    let (key, index) = (LessSafeKey::new(key), (udp.local_addr()? < other).into());
    let tun = open_tun(&device)?;
    #[rustfmt::skip]
    let ends = Ends { tun, udp, other, key, index };
    let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut both = [watch(ends.udp.as_fd()), watch(ends.tun.as_fd())];
    let (mut inbound, mut outbound) = (Inbound::default(), Outbound::default());
    let (mut buffer, mut ready) = (vec![0; SUPER_PACKET], [true; 2]);
    loop {
        let datagrams = ready[0] && is_more(4, || inbound.carry(&ends))?;
        let packets = ready[1] && is_more(64, || outbound.carry(&ends, &mut buffer))?;
        // Nothing read waits for more to come.
        outbound.send(&ends)?;
        ready = [true; 2];
        if !datagrams && !packets {
            poll(&mut both, PollTimeout::NONE)?;
            ready = [0, 1].map(|end| both[end].any() == Some(true));
        }
    }
}

// A request to the driver is a name of 16 bytes, flags, and room for others.
nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, [u8; 40]);
nix::ioctl_write_int_bad!(set_offloads, libc::TUNSETOFFLOAD);

/// Makes a TUN device that reads and writes super-packets.
fn open_tun(name: &str) -> Result<File> {
    let path = "/dev/net/tun";
    let tun = File::options().read(true).write(true).open(path)?;
    fcntl(&tun, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut request = [0; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request[16..20].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request is as long as the kernel's, and lives through the call.
    unsafe { set_interface(tun.as_raw_fd(), &request) }?;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // SAFETY: the argument is a number.
    unsafe { set_offloads(tun.as_raw_fd(), offloads as libc::c_int) }?;
    Ok(tun)
}

/// Carries what is there, but not for ever; whether there may be more.
fn is_more(times: usize, mut carry: impl FnMut() -> Result<()>) -> Result<bool> {
    match (0..times).try_for_each(|_| carry()) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        other => other.map(|()| true),
    }
}
