//! The least a tunnel in user space can do: TUN → AEAD → UDP and back, as fast as one can make it, and nothing else.
//!
//! A yardstick: what the product reaches is divided by what this reaches. No peers, no handshake, no replay window, no
//! rekeying; **the key is written below, so it protects nothing**. Datagrams are as long as the product's. IPv4 inside
//! and outside; TCP is split and joined, UDP split. One thread, run to completion.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{Error, ErrorKind, IoSlice, IoSliceMut, Read, Result, Write},
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::{AsFd, AsRawFd},
    os::unix::fs::OpenOptionsExt,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
};

mod inbound;
mod internet;
mod outbound;

const USAGE: &str = "usage: floor DEVICE OWN-ADDRESS:PORT OTHER-ADDRESS:PORT aes|chacha
  Makes the TUN device DEVICE, for others to set up, and carries its packets to the other end and back.";

/// Before each sealed packet: type, index and counter, all authenticated; and after it.
const HEADER: usize = 16;
const TAG: usize = 16;

/// The largest IP packet with the virtio header that the kernel puts before it, and some to spare.
const SUPER_PACKET: usize = 68 * 1024;

const SEND_BUFFER: usize = 4 << 20;
const RECEIVE_BUFFER: usize = 16 << 20;

nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(set_offloads, libc::TUNSETOFFLOAD);

fn main() -> Result<()> {
    let usage = || Error::new(ErrorKind::InvalidInput, USAGE);
    let words: Vec<String> = env::args().skip(1).collect();
    let [device, own, other, cipher] = words.as_slice() else {
        return Err(usage());
    };
    let other: SocketAddr = other.parse().map_err(|_| usage())?;
    let algorithm = match cipher.as_str() {
        "aes" => &AES_256_GCM,
        "chacha" => &CHACHA20_POLY1305,
        _ => return Err(usage()),
    };
    let tun = open_tun(device)?;
    let udp = UdpSocket::bind(own)?;
    udp.set_nonblocking(true)?;
    setsockopt(&udp, sockopt::SndBufForce, &SEND_BUFFER)?;
    setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&udp, sockopt::UdpGroSegment, &true)?;
    let key = || UnboundKey::new(algorithm, &[7; 32]).expect("32 bytes are a key");
    let sealer = |direction| Sealer(LessSafeKey::new(key()), direction);
    let is_first = udp.local_addr()? < other;
    let mut outbound = outbound::Outbound::new(&tun, &udp, other, sealer(is_first));
    let mut inbound = inbound::Inbound::new(&tun, &udp, sealer(!is_first));
    let mut ready = [true; 2];
    loop {
        let datagrams = ready[0] && inbound.pump()?;
        let packets = ready[1] && outbound.pump()?;
        ready = [true; 2];
        if !datagrams && !packets {
            let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut both = [watch(udp.as_fd()), watch(tun.as_fd())];
            poll(&mut both, PollTimeout::NONE)?;
            ready = both.map(|one| one.any() == Some(true));
        }
    }
}

/// Makes a TUN device that reads and writes super-packets.
fn open_tun(name: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK);
    let tun = options.open("/dev/net/tun")?;
    // SAFETY: an ifreq is plain bytes, for which all zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, letter) in request.ifr_name[..15].iter_mut().zip(name.bytes()) {
        *place = letter as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request lives through the call.
    unsafe { set_interface(tun.as_raw_fd(), &raw const request) }?;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // SAFETY: the argument is a number.
    unsafe { set_offloads(tun.as_raw_fd(), offloads as libc::c_int) }?;
    Ok(tun)
}

/// What a call gave; None where it would have to wait.
fn at_once<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// One key for both directions: the nonce says which.
struct Sealer(LessSafeKey, bool);

impl Sealer {
    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[0] = self.1.into();
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}
